"""The parent's handle on the program in the sandbox: sessions are opened, asked within a time limit, and ended.

Whatever comes through a session's pipe was written by a learner's code. It is taken as plain data within a size and a
time, and nothing of it is executed.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tinypress_course.checks.base import Answer
from tinypress_course.errors import CourseError
from tinypress_course.grade.rubric import Limits
from tinypress_course.grade.sandbox import SCRATCH_BYTES, Sandbox, kill
from tinypress_course.models import Plain
from tinypress_course.wire import WireError, receive, send
from tinypress_course.worker import ENDED, KILLED, READY, START, STOP

_STARTING_SECONDS = 120.0
_CLOSED = "the pipe was closed"
_LATE_START = "was not done with executing the file after"
_MOST_NUMBERS = 1 << 24  # a layer is built before its tensors are looked at
Pieces = Sequence[tuple[str, str]]


class Lost(Exception):
    """A session gave no answer that can be used; the text says why, after the words "its process"."""


class Unstarted(Lost):
    """The learner's file itself could not be executed, so that there is nothing to ask."""


class JailBroken(Exception):
    """The program in the sandbox itself is gone; a new one has to be started."""


class Jail:
    """A running sandbox, with PyTorch imported and no learner's code in it yet."""

    def __init__(self, sandbox: Sandbox, limits: Limits) -> None:
        self._sandbox, self._limits = sandbox, limits
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"from tinypress_course.worker import serve; serve({theirs.fileno()})"
        self._process: subprocess.Popen[bytes] = sandbox.start(code, theirs, self._errors.fileno())
        theirs.close()
        self._ready = False
        self.broken = False

    def wait_until_ready(self) -> None:
        """Wait for the program to have started.

        Raises:
            CourseError: it does not start.
        """
        if self._ready:
            return
        self._control.settimeout(_STARTING_SECONDS)
        with contextlib.suppress(OSError):
            self._ready = self._control.recv(16) == READY
        if not self._ready:
            self._errors.seek(0)
            lines = self._errors.read(1 << 16).decode(errors="replace").strip().splitlines()
            raise CourseError(
                f"the sandbox ({self._sandbox.kind}) does not start: {lines[-1][:300] if lines else 'no message'}. "
                "Choose another one with --isolation"
            )

    @contextlib.contextmanager
    def session(self, pieces: Pieces, until: float) -> Iterator[Session]:
        """A fresh child with ``pieces`` executed in it, for calls ``until`` then; it is ended whatever it does.

        Raises:
            Unstarted: the pieces could not be executed within the limits.
            JailBroken: the sandbox is gone.
        """
        self.wait_until_ready()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._ask(START, [theirs.fileno()])
            session = Session(ours.fileno(), self._limits, until, self._how_it_ended)
            try:
                bounds = {
                    "memory": self._limits.memory_bytes,
                    "file": SCRATCH_BYTES,
                    "seconds": max(1, int(until - time.monotonic()) + 1),
                }
                session.begin(pieces, bounds, filtered=self._sandbox.filtered)
                yield session
            finally:
                if not session.ended and not self.broken:
                    self._ask(STOP)

    def _how_it_ended(self, said: str) -> str:
        """End the session, and say how it had ended by itself, where it had."""
        if said != _CLOSED:
            self._ask(STOP)
            return said
        told = self._ask(ENDED)
        if told == KILLED:
            return "closed its pipe"
        code = int(told)
        if code == -signal.SIGKILL:
            return "was stopped by the kernel: too much memory, or too much time"
        return (
            f"crashed ({signal.Signals(-code).name})"
            if code < 0
            else f"ended by itself with exit code {code}"
        )

    def _ask(self, what: bytes, handed: Sequence[int] = ()) -> bytes:
        self._control.settimeout(self._limits.call_seconds)
        try:
            socket.send_fds(self._control, [what], handed)
            answer = self._control.recv(16)
        except OSError:
            answer = b""
        if not answer:
            self.broken = True
            raise JailBroken("broke the sandbox")
        return answer

    def close(self) -> None:
        """Kill everything inside, at once."""
        self._control.close()
        kill(self._process)
        self._errors.close()


class Session:
    """One child of the sandbox's program, which has executed a learner's pieces."""

    def __init__(self, pipe: int, limits: Limits, until: float, how_it_ended: Callable[[str], str]) -> None:
        self._pipe, self._limits, self._until = _Patient(pipe), limits, until
        self._how_it_ended = how_it_ended
        self.failed: Mapping[str, str] = {}
        self.ended = False

    def begin(self, pieces: Pieces, bounds: Mapping[str, int], *, filtered: bool) -> None:
        """Have the pieces executed; ``failed`` then says which of them raised what."""
        first = {"pieces": [list(piece) for piece in pieces], "bounds": dict(bounds), "filtered": filtered}
        try:
            failed = self._exchange(first, self._limits.import_seconds, _LATE_START)
        except Lost as lost:
            raise Unstarted(str(lost)) from lost
        told = failed.get("failed")
        if isinstance(told, Mapping):
            self.failed = {_encodable(name): _encodable(said)[:300] for name, said in told.items()}

    def call(self, function: str, inputs: Mapping[str, Plain]) -> Answer:
        """What ``function`` answers.

        Raises:
            Lost: no answer, or none that can be read.
        """
        asked = {"function": function, "inputs": dict(inputs)}
        answer = self._exchange(asked, self._limits.call_seconds, "gave no answer within")
        if numbers_described(answer) > _MOST_NUMBERS:
            raise self._lost("sent a network that is larger than any that it got")
        return _tame(answer)

    def _exchange(self, message: Plain, seconds: float, late: str) -> Mapping[str, Any]:
        now = time.monotonic()
        self._pipe.deadline = min(now + seconds, self._until)
        try:
            send(self._pipe, message)
            answer = receive(self._pipe, self._limits.answer_bytes)
        except TimeoutError:
            used_up = self._until < now + seconds
            said = "used up the time that a learner has" if used_up else f"{late} {seconds:g} seconds"
        except WireError as error:
            said = _CLOSED if str(error) == _CLOSED else f"sent what cannot be read: {error}"
        except OSError:
            said = _CLOSED
        else:
            if isinstance(answer, dict):
                return answer
            said = f"sent a {type(answer).__name__} instead of an answer"
        raise self._lost(said)

    def _lost(self, said: str) -> Lost:
        self.ended = True
        return Lost(self._how_it_ended(said))


class _Patient(io.FileIO):
    """A pipe that is read and written until ``deadline`` and no longer, however little comes at a time."""

    deadline = 0.0

    def __init__(self, number: int) -> None:
        super().__init__(number, "r+b", closefd=False)
        os.set_blocking(number, False)

    def read(self, size: int | None = -1, /) -> bytes:
        self._wait(select.POLLIN)
        return os.read(self.fileno(), 1 << 20 if size is None or size < 0 else size)

    def write(self, data: Any, /) -> int:
        rest = memoryview(data)
        while rest:
            self._wait(select.POLLOUT)
            rest = rest[os.write(self.fileno(), rest) :]
        return len(data)

    def _wait(self, what: int) -> None:
        poll = select.poll()
        poll.register(self.fileno(), what)
        if not poll.poll(max(0.0, 1000 * (self.deadline - time.monotonic()))):
            raise TimeoutError


def numbers_described(answer: Plain) -> int:
    """How many numbers the layers in an answer would hold by what it says of them, were they built: at most so many."""
    total, open_ones = 0, [answer]
    while open_ones:
        value = open_ones.pop()
        if isinstance(value, Mapping):
            if "kind" in value and isinstance(value.get("options"), Mapping):
                sizes = [each for option in value["options"].values() for each in _flat(option)]
                total += math.prod(max(1, size) for size in sizes)
            open_ones += value.values()
        elif isinstance(value, list):
            open_ones += value
    return total


def _flat(option: Plain) -> list[int]:
    return [each for each in (option if isinstance(option, list) else [option]) if isinstance(each, int)]


def _tame(answer: Mapping[str, Any]) -> Answer:
    """An answer that says it is an error has the fields of one, of the right kinds."""
    if set(answer) != {"error", "kinds", "message"}:
        return {name: value for name, value in answer.items() if name != "kinds"}
    kinds = answer["kinds"] if isinstance(answer["kinds"], list) else []
    return {
        "error": _encodable(answer["error"])[:80],
        "kinds": [_encodable(kind)[:80] for kind in kinds[:20]],
        "message": _encodable(answer["message"])[:500],
    }


def _encodable(text: object) -> str:
    """``text`` without what no file can hold, such as half of a surrogate pair."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
