"""Which isolation there is on this machine, tried out before a learner's code runs, and how a program starts in it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinypress_course.errors import CourseError
from tinypress_course.grade import syscalls
from tinypress_course.grade.stage import DEVICES, ENVIRONMENT, MACHINE_FACTS, Stage, build_stage

Kind = Literal["bubblewrap", "namespaces", "landlock", "none"]
STRONGEST_FIRST: tuple[Kind, ...] = ("bubblewrap", "namespaces", "landlock")
ABOUT: dict[Kind, str] = {
    "bubblewrap": "bubblewrap: a file system, a process table and a network of their own",
    "namespaces": "kernel namespaces: a file system, a process table and a network of their own",
    "landlock": "Landlock and seccomp: the kernel refuses files, connections and other processes",
    "none": "no isolation: the teacher trusts these submissions",
}
SCRATCH_BYTES = 64 << 20
_NUMBERS = itertools.count(os.getpid())

# What the code in the sandbox tries; it sends back a list of what should not have been possible.
_ATTEMPTS = """
import json, os, socket
from tinypress_course.grade.confine import confine
pipe = socket.socket(fileno={control})
confine({{"memory": 1 << 28, "file": 1 << 20, "seconds": 20}}, filtered={filtered})
found = []
def attempt(what, action):
    try:
        action()
    except (OSError, ImportError):
        return
    found.append(what)
attempt("a file outside can be read", lambda: open({canary!r}).read())
attempt("a file outside can be written", lambda: open({canary!r}, "a"))
attempt("the folder of submissions can be written", lambda: open({canary!r} + ".new", "w"))
attempt("the toolkit can be imported", lambda: __import__("tinypress"))
attempt("a network can be reached", lambda: socket.create_connection(("127.0.0.1", {port}), 1))
os.write({control}, json.dumps(found).encode())
"""


@dataclass(frozen=True)
class Sandbox:
    """How programs are shut in: the kind, and what they are shown."""

    kind: Kind
    stage: Stage
    user_namespace: bool = False

    @property
    def filtered(self) -> bool:
        """Whether sessions refuse system calls too: also those of trusted submissions, which may fork by mistake."""
        return syscalls.known_machine()

    def start(self, code: str, control: socket.socket, errors: int) -> subprocess.Popen[bytes]:
        """Start ``code`` inside, with the socket ``control`` under its own number; messages go to ``errors``."""
        command = self.stage.program(code)
        if self.kind == "bubblewrap":
            command = self._bubblewrap(command)
        elif self.kind != "none":
            command = self._jail(command)
        return subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(control.fileno(),),
            start_new_session=True,  # no terminal, and no Ctrl-C
        )

    def _environment(self) -> dict[str, str]:
        scratch = "/scratch" if self.kind in ("bubblewrap", "namespaces") else str(self.stage.folder)
        # the last is made at import where it is not there, and nothing can be made under Landlock
        return {**ENVIRONMENT, "HOME": scratch, "TMPDIR": scratch, "TORCHINDUCTOR_CACHE_DIR": scratch}

    def _jail(self, command: list[str]) -> list[str]:
        facts = [name for name in MACHINE_FACTS if Path(name).exists()]
        plan = {
            "kind": self.kind,
            "user_namespace": self.user_namespace,
            "number": next(_NUMBERS),
            "root": str(self.stage.folder.with_name("root")),
            "folder": str(self.stage.folder),
            "shown": [*map(str, self.stage.shown), *facts],
            "listed": sorted({str(path.parent) for path in self.stage.shown if path.name == "os.py"}),
            "devices": list(DEVICES),
            "links": [[str(place), target] for place, target in self.stage.links],
            "scratch_bytes": SCRATCH_BYTES,
            "command": command,
            "environment": self._environment(),
        }
        script = str(Path(__file__).with_name("jail.py"))
        return [str(self.stage.python), "-I", "-S", "-B", script, json.dumps(plan)]

    def _bubblewrap(self, command: list[str]) -> list[str]:
        program = shutil.which("bwrap")
        words = [program or "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
        words += ["--uid", "1000", "--gid", "1000", "--chdir", "/scratch"]
        words += ["--size", str(SCRATCH_BYTES), "--tmpfs", "/scratch"]
        for path in self.stage.shown:
            words += ["--ro-bind", str(path), str(path)]
        for name in MACHINE_FACTS:
            words += ["--ro-bind-try", name, name]
        for name in DEVICES:
            words += ["--dev-bind", name, name]
        for place, target in self.stage.links:
            words += ["--symlink", target, str(place)]
        return [*words, "--remount-ro", "/", "--", *command]


def kill(process: subprocess.Popen[bytes]) -> None:
    """End what was started, with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def open_sandbox(wanted: Kind | None = None, *, trust: bool = False) -> Iterator[Sandbox]:
    """The strongest isolation that holds here, or the one that is ``wanted``; what it shows lasts as long as this.

    Raises:
        CourseError: there is none, with the reason for each, and ``trust`` was not given.
    """
    with tempfile.TemporaryDirectory(prefix="tito-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o711)
        (folder / "stage").mkdir()
        (folder / "root").mkdir()
        stage = build_stage(folder / "stage")
        reasons = {}
        for kind in STRONGEST_FIRST if wanted is None else (wanted,):
            sandbox = Sandbox(kind, stage)
            reason = None if kind == "none" else why_not(sandbox)
            if reason is None and (kind != "none" or trust):
                yield sandbox
                return
            reasons[kind] = reason or "that needs --trust"
        if trust and wanted is None:
            yield Sandbox("none", stage)
            return
    told = "; ".join(f"{kind}: {reason}" for kind, reason in reasons.items())
    raise CourseError(
        f"there is no isolation in which submissions may run here ({told}). Install bubblewrap, or give --trust for "
        "submissions that you have read"
    )


def why_not(sandbox: Sandbox) -> str | None:
    """Why ``sandbox`` cannot be used here: it does not start, or it does not hold. None where it does."""
    if sandbox.kind == "bubblewrap" and shutil.which("bwrap") is None:
        return "bwrap is not installed"
    if sandbox.kind == "landlock" and not syscalls.known_machine():
        return "there is no filter of system calls for this machine"
    canary = sandbox.stage.folder.with_name("canary")
    canary.write_text("seen")
    canary.chmod(0o666)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryFile() as errors:
        code = _ATTEMPTS.format(
            control=theirs.fileno(),
            filtered=sandbox.filtered,
            canary=str(canary),
            port=server.getsockname()[1],
        )
        process = sandbox.start(f"exec({code!r})", theirs, errors.fileno())
        theirs.close()
        ours.settimeout(20)
        try:
            told = ours.recv(4096)
        except TimeoutError:
            told = b""
        kill(process)
        if not told:
            errors.seek(0)
            lines = errors.read(4096).decode(errors="replace").strip().splitlines()
            return lines[-1][:200] if lines else "it does not start"
    found = json.loads(told)
    return f"it does not hold ({', '.join(found)})" if found else None
