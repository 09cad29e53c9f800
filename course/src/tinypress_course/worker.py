"""The program in the sandbox: it executes a learner's definitions and answers calls. It judges nothing.

One process imports PyTorch once and forks a fresh child for each session, so that what a session does to its Python,
to its memory or to itself is gone with it. The parent outside hands over a pipe for each session; checks, seeds and
right answers are not here, so a forged answer is only ever an answer.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import nn

from tinypress_course import probes
from tinypress_course.grade.confine import close_to_others, confine, die_with_parent
from tinypress_course.models import Plain
from tinypress_course.wire import WireError, receive, send

START, STOP, ENDED, READY, KILLED = b"start", b"stop", b"ended", b"ready", b"killed"
_LAST_MOMENTS = 1.0  # for a session to end by itself, so that it can be said how


def serve(control: int) -> None:
    """Fork a session for each START on the socket ``control``, until the parent is gone.

    STOP ends it at once. ENDED says that its pipe was closed, and asks how it ended.
    """
    die_with_parent()
    warm_up()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    close_to_others()
    gc.collect()
    gc.freeze()
    pipe = socket.socket(fileno=control)
    pipe.sendall(READY)
    child = 0
    while True:
        asked, handed, _, _ = socket.recv_fds(pipe, 16, 1)
        if asked == START:
            child = os.fork()
            if child == 0:
                _enter(handed[0])
            os.close(handed[0])
            pipe.sendall(START)
        elif asked == STOP:
            pipe.sendall(_end(child, patience=0.0))
        elif asked == ENDED:
            pipe.sendall(_end(child, patience=_LAST_MOMENTS))
        else:
            os._exit(0)


def _end(child: int, patience: float) -> bytes:
    """The exit code of ``child``, negative for a signal, or KILLED where it had to be helped."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return str(os.waitstatus_to_exitcode(status)).encode()
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return KILLED


def warm_up() -> None:
    """Import and start what functions use, so that no session pays for it: an optimizer alone takes seconds."""
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    for kind in (torch.optim.AdamW, torch.optim.SGD):
        optimizer = kind(network.parameters(), lr=0.1)
        loss = nn.functional.cross_entropy(network(torch.ones(3, 1, 8)), torch.zeros(3, dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    safetensors.torch.load(safetensors.torch.save({"one": torch.ones(1)}))


def _enter(handed: int) -> None:
    """Be a session on the open file ``handed`` and never return."""
    status = 1
    try:
        os.closerange(3, handed)
        os.closerange(handed + 1, 4096)
        session(handed)
        status = 0
    finally:
        os._exit(status)


def session(handed: int) -> None:
    """Confine this process, execute the pieces that come first, then answer one call after the other."""
    incoming = open(handed, "rb", buffering=0, closefd=False)  # noqa: SIM115
    outgoing = open(handed, "wb", closefd=False)  # noqa: SIM115
    first = receive(incoming)
    confine(first["bounds"], filtered=first["filtered"])
    sys.modules["learner"] = module = ModuleType("learner")
    functions = module.__dict__
    failed = {name: said for name, text in first["pieces"] if (said := _executed(name, text, functions))}
    send(outgoing, {"failed": failed})
    while True:
        try:
            asked = receive(incoming)
        except WireError:
            return  # the parent has heard enough
        answer = _answer(functions, asked)
        try:
            send(outgoing, answer)
        except BaseException as error:  # whatever came back may be impossible to send
            send(outgoing, probes.described(error))


def _executed(name: str, text: str, functions: dict[str, Any]) -> str:
    """Execute one piece; what it raised in words, or nothing."""
    try:
        exec(compile(text, f"<{name}>", "exec"), functions)
    except BaseException as error:  # exit() in a cell is one way to fail
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def _answer(functions: Mapping[str, Any], asked: Plain) -> dict[str, Plain]:
    try:
        return probes.call(functions, asked["function"], asked["inputs"])
    except BaseException as error:
        return probes.described(error)


def scout() -> None:
    """Print, as JSON, the shared libraries that this program has opened once it is warm."""
    warm_up()
    lines = Path("/proc/self/maps").read_text().splitlines()
    names = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    print(json.dumps(sorted(name for name in names if ".so" in Path(name).name)))
