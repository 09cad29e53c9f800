"""The machine that a receipt's latencies were measured on: which processor, and what it can do with int8."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tinypress.errors import InputError
from tinypress.receipt import Machine

# The kernel's name of each instruction set that int8 or float kernels are chosen by, and ours.
ISA = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "asimddp",
    "i8mm": "i8mm",
}
RUNTIMES = ("onnxruntime", "torch")
UNKNOWN = "unknown"


def machine(threads: int, cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The processor, its instruction sets, the threads in use and the versions of the runtimes.

    Where ``cpuinfo`` cannot be read (another system than Linux) the name is the platform's, and no
    instruction set is claimed.

    Raises:
        InputError: fewer than 1 thread.
    """
    if threads < 1:
        raise InputError(f"machine(threads={threads})", "there is no thread to run on", "Give at least 1")
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name, isa = read_cpuinfo(text)
    return Machine(
        cpu=name or platform.processor() or platform.machine() or UNKNOWN,
        isa=isa,
        threads=threads,
        runtimes={runtime: _version(runtime) for runtime in RUNTIMES},
    )


def read_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and known instruction sets of the first processor in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    name = fields.get("model name") or fields.get("hardware") or ""
    flags = (fields.get("flags") or fields.get("features") or "").split()
    return name, tuple(dict.fromkeys(ours for theirs, ours in ISA.items() if theirs in flags))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN
