"""Each kind of isolation that this machine has: what it refuses, and that nothing is left when it is closed."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from tinypress_course.errors import CourseError
from tinypress_course.grade.child import Jail, Lost
from tinypress_course.grade.sandbox import STRONGEST_FIRST, Sandbox, kill, open_sandbox, why_not
from tinypress_course.grade.stage import needed_distributions

# root has namespaces of its own, and those that an ordinary user makes
MARK = b"left-behind"
WAYS = [(kind, False) for kind in STRONGEST_FIRST] + [("namespaces", True)]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way[0] + (" of a user" if way[1] else ""))
def held(request, sandbox, limits):
    """A jail of each kind, and the sandbox that it is in."""
    kind, user_namespace = request.param
    chosen = Sandbox(kind, sandbox.stage, user_namespace)
    reason = why_not(chosen)
    if reason is not None:
        pytest.skip(f"{kind}: {reason}")
    opened = Jail(chosen, limits)
    opened.wait_until_ready()
    yield opened, chosen
    opened.close()


def raised_by(jail, code):
    """What a piece of code raises in a fresh session, or why the session was lost."""
    try:
        with jail.session([("piece", code)], time.monotonic() + 60) as session:
            return session.failed.get("piece", "")
    except Lost as lost:
        return f"its process {lost}"


def test_there_is_no_network(held):
    jail, _ = held
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert raised_by(jail, code).startswith(("PermissionError", "ConnectionRefused", "OSError"))
    for family in ("AF_UNIX", "AF_INET6", "AF_NETLINK"):
        assert raised_by(jail, f"import socket\nsocket.socket(socket.{family})").startswith("PermissionError")


def test_no_file_outside_is_read_or_written(held, tmp_path):
    jail, _ = held
    own = tmp_path / "own"
    own.write_text("mine")
    own.chmod(0o666)
    home = Path.home()
    for code in (
        f"open({str(own)!r}).read()",
        f"open({str(own)!r}, 'w')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os\nos.listdir({str(home)!r})\nopen({str(home / '.profile')!r}).read()",
        "open('/etc/passwd').read()",
        f"import os\nos.remove({str(own)!r})",
        f"import os\nos.chmod({str(own)!r}, 0)",
        "import torch\nopen(torch.__file__, 'a')",
        "import tinypress_course.probes as p\nopen(p.__file__, 'w')",
        "open('/proc/1/environ').read()",
        "open('/proc/self/mem').read()",
    ):
        assert raised_by(jail, code).startswith(("PermissionError", "FileNotFoundError", "OSError")), code
    assert own.read_text() == "mine"
    assert own.stat().st_mode & 0o777 == 0o666
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_neither_the_toolkit_nor_the_checks_are_there(held, sandbox):
    jail, _ = held
    places = ["/work", "/usr/lib/python3/dist-packages", str(Path(pytest.__file__).parents[1])]
    for name in ("tinypress", "tinypress_course.checks", "tinypress_course.misconceptions", "pytest", "onnx"):
        code = f"import sys\nsys.path += {places!r}\nimport {name}"
        assert raised_by(jail, code).startswith(("ModuleNotFoundError", "PermissionError")), name
    source = Path(needed_distributions.__code__.co_filename).parents[1] / "feedback.py"
    assert raised_by(jail, f"open({str(source)!r}).read()").startswith(
        ("PermissionError", "FileNotFoundError")
    )


def test_bombs_and_loops_end_with_their_session(held):
    jail, _ = held
    assert raised_by(jail, "import os\nwhile True:\n    os.fork()").startswith("PermissionError")
    assert raised_by(jail, "held = []\nwhile True:\n    held.append(bytearray(10**6))").startswith(
        "MemoryError"
    )
    assert raised_by(jail, "import mmap\nmmap.mmap(-1, 1 << 40)").startswith("OSError")
    assert raised_by(jail, "while True:\n    pass").startswith("its process was not done")
    assert raised_by(jail, "import os\nos._exit(7)") == "its process ended by itself with exit code 7"
    assert raised_by(jail, "pass") == ""


def test_it_cannot_signal_or_trace_anybody(held):
    jail, _ = held
    for call in (
        f"os.kill({os.getpid()}, 0)",
        "os.kill(os.getppid(), 9)",
        "os.kill(-1, 9)",
        "os.kill(os.getpid(), 9)",
    ):
        assert raised_by(jail, f"import os\n{call}").startswith(("PermissionError", "ProcessLookupError")), (
            call
        )
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"if 0 in (libc.ptrace(16, {os.getpid()}, 0, 0), libc.ptrace(16, 1, 0, 0)):\n    raise RuntimeError('traced')\n"
        "if libc.syscall(272, 0x10000000) == 0:\n    raise RuntimeError('a namespace')\n"
        "if libc.prlimit(1, 7, None, None) == 0:\n    raise RuntimeError('limits of another')"
    )
    assert raised_by(jail, code) == ""
    fcntl = f"import fcntl, os\nfcntl.fcntl(0, fcntl.F_SETOWN, {os.getpid()})"
    assert raised_by(jail, fcntl).startswith("PermissionError")


def test_what_can_be_written_is_small_and_its_own(held):
    jail, sandbox = held
    fill = "for n in range(100):\n    open(f'/scratch/{n}', 'wb').write(bytes(10**6))"
    said = raised_by(jail, fill)
    if sandbox.kind == "landlock":
        assert said.startswith(("PermissionError", "FileNotFoundError"))
    else:
        assert "No space left" in said
    assert not Path("/scratch").exists()


def test_nothing_of_it_is_left_when_it_is_killed(held):
    _, sandbox = held
    # under Landlock a session starts no process, and there is no process table of its own to end with it
    fork = (
        ""
        if sandbox.kind == "landlock"
        else "os.fork()\nos.fork()\nos.getpid() == os.getsid(0) or os.setsid()\n"
    )
    code = f"import os, socket, time\n{fork}socket.socket(fileno=NUMBER).send(b'up')\ntime.sleep(600)"

    def running():
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                found |= {process.name} if MARK in (process / "cmdline").read_bytes() else set()
        return found

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, tempfile.TemporaryFile() as errors:
        text = code.replace("NUMBER", str(theirs.fileno()))
        process = sandbox.start(f"exec({text!r})  # {MARK.decode()}", theirs, errors.fileno())
        ours.settimeout(10)
        for _ in range(4 if fork else 1):
            assert ours.recv(16) == b"up"
        assert len(running()) >= 1
        kill(process)
    until = time.monotonic() + 5
    while running() and time.monotonic() < until:
        time.sleep(0.05)
    assert running() == set()


def test_an_isolation_that_does_not_hold_is_found_out(sandbox):
    assert "a file outside can be read" in (why_not(Sandbox("none", sandbox.stage)) or "")


def test_none_at_all_needs_trust(monkeypatch, sandbox):
    monkeypatch.setattr("tinypress_course.grade.sandbox.why_not", lambda sandbox: "not on this machine")
    monkeypatch.setattr("tinypress_course.grade.sandbox.build_stage", lambda folder: sandbox.stage)
    with pytest.raises(CourseError, match=r"landlock: not on this machine.*--trust"), open_sandbox():
        pass
    with open_sandbox(trust=True) as trusted:
        assert trusted.kind == "none"


def test_no_package_that_is_shown_needs_the_toolkit():
    names = needed_distributions(("torch", "numpy", "safetensors"))
    assert {"torch", "numpy", "safetensors", "sympy"} <= set(names)
    assert not {"tinypress", "tinypress-course", "onnx", "pytest"} & set(names)
