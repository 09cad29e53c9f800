"""Press with both engines at the same time, each in a process of its own, and read what they wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tinypress import Receipt
from tinypress_course.errors import CourseError

Show = Callable[[str, str, int, int], None]
NAMES = {"mine": "yours", "reference": "the toolkit's"}


@dataclass(frozen=True)
class Both:
    """Two receipts, and the techniques that had to be left out of the learner's, with the reason."""

    mine: Receipt
    reference: Receipt
    left_out: dict[str, str]


@dataclass
class _Side:
    process: subprocess.Popen[str]
    left_out: dict[str, str] = field(default_factory=dict)
    complaint: str = ""


def press_both(folder: Path, out: Path, *, fresh: bool, controls: bool, show: Show) -> Both:
    """Press into ``out``/mine and ``out``/reference.

    A side that was finished, or stopped, with the same functions is taken up where it was.

    Args:
        folder: the module's folder, in which the exported package is.
        fresh: press the learner's side again from the beginning.
        controls: also press the controls, on the toolkit's side.

    Raises:
        CourseError: a side could not be pressed at all.
    """
    extra = {"mine": [str(folder), *(["--fresh"] if fresh else [])], "reference": ["--controls"] * controls}
    sides = {name: _start(out / name, name, more) for name, more in extra.items()}
    followers = [
        threading.Thread(target=_follow, args=(side, name, show), daemon=True) for name, side in sides.items()
    ]
    try:
        for thread in followers:
            thread.start()
        for thread in followers:
            thread.join()
        for name, side in sides.items():
            if side.process.wait() != 0:
                raise CourseError(f"tito run: {NAMES[name]} could not be pressed. {_last(side.complaint)}")
    finally:
        for side in sides.values():
            if side.process.poll() is None:
                side.process.terminate()
                side.process.wait()
    return Both(read_receipt(out / "mine"), read_receipt(out / "reference"), sides["mine"].left_out)


def read_receipt(run: Path) -> Receipt:
    """The receipt of a finished run."""
    return Receipt.model_validate_json((run / "receipt.json").read_bytes())


def _start(out: Path, name: str, more: Sequence[str]) -> _Side:
    command = [sys.executable, "-m", "tinypress_course.run.side", str(out), name, *more]
    return _Side(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    )


def _follow(side: _Side, name: str, show: Show) -> None:
    assert side.process.stdout is not None
    assert side.process.stderr is not None
    complaints = threading.Thread(target=_listen, args=(side, side.process.stderr), daemon=True)
    complaints.start()
    with side.process.stdout as lines:
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:  # a learner's function may print, too
                continue
            if isinstance(said, dict) and "done" in said:
                show(name, f"{NAMES[name]}: {said['what']}", said["done"], said["total"])
            elif isinstance(said, dict) and "left_out" in said:
                side.left_out = said["left_out"]
    complaints.join()


def _listen(side: _Side, pipe: IO[str]) -> None:
    with pipe:
        side.complaint = pipe.read()


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "It was ended from outside."
