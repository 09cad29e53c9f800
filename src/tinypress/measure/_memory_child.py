"""Runs one ONNX file in a process of its own and prints by how much that raised its memory.

Started by ``memory.py`` as a script: reads one JSON object from standard input, prints one. It imports
neither tinypress nor torch, whose own memory would stand in the figure. Linux only.
"""

import base64
import contextlib
import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

PASSES = 5
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def main() -> None:
    request = json.load(sys.stdin)
    feeds = [feed(shape, dtype) for shape, dtype in request["inputs"]]
    run(base64.b64decode(request["warm_up"]), request["threads"], [np.zeros((1, 1, 4, 4), np.float32)])
    give_back_free_memory()
    reset = reset_high_water_mark()
    resident, mark = status("VmRSS"), status("VmHWM")
    run(request["path"], request["threads"], feeds)
    peak = status("VmHWM")
    if peak == mark and not reset:
        raise RuntimeError("starting took more memory than the file does, and the mark cannot be reset")
    json.dump({"bytes": peak - resident}, sys.stdout)


def run(model: str | bytes, threads: int, feeds: list[np.ndarray]) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for _ in range(PASSES):
        session.run(None, dict(zip(names, feeds, strict=True)))


def feed(shape: list[int], dtype: str) -> np.ndarray:
    """Noise for floats; zeros for integers, which are indices more often than not."""
    if np.issubdtype(np.dtype(dtype), np.floating):
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)


def give_back_free_memory() -> None:
    """What was freed but is still resident would serve the artifact unseen."""
    with contextlib.suppress(AttributeError, OSError):  # not every C library can; the figure is then low
        ctypes.CDLL(None).malloc_trim(0)


def reset_high_water_mark() -> bool:
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def status(field: str) -> int:
    """Bytes of one field of this process's status."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no {field}")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        json.dump({"error": f"{type(error).__name__}: {error}"}, sys.stdout)
