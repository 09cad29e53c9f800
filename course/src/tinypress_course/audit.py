"""Look for solutions where learners could find them, and try the exercise: unsolved it fails, solved it passes.

A line of a solution counts from ``LEAST`` characters on, with its spaces brought together, where the statement of its
own cell does not show it. In an exercise, one such line is a leak, also as part of a longer line or behind a comment
sign. In the package's own code ``RUN`` of them one after the other are: checks and known mistakes are about the same
tensors, and a line alone (``scale = width / most``) gives nothing away there. ``GENERIC`` lines are everybody's.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tinypress_course.cells import load_definitions, read_cells
from tinypress_course.feedback import evaluate
from tinypress_course.findings import Finding
from tinypress_course.marks import BEGIN, END, marked, released
from tinypress_course.module import SOURCE, read_module

LEAST = 16
RUN = 2
GENERIC = frozenset({"with torch.no_grad():", "raise ValueError("})
EXERCISE = "tinypress_course/exercise/"
SEED = 0

Secrets = tuple[tuple[str, ...], ...]
Lines = list[tuple[int, str]]


def audit(source: Path, folder: Path) -> tuple[Finding, ...]:
    """What is wrong with the exercise in ``folder`` that was released from the module in ``source``.

    How it behaves is tried where nothing leaks.
    """
    return leaks_in_folder(folder, secrets_of(source)) or tuple(_behaviour(source, folder))


def secrets_of(source: Path) -> Secrets:
    """The lines of every solution and hidden test of the module in ``source`` that must not be seen."""
    return tuple(
        tuple(
            line
            for line in map(_normal, piece.lines)
            if _tells(line) and line not in _normal(released(cell.text))
        )
        for cell in read_cells(source / SOURCE)
        if cell.role != "text"
        for piece in marked(cell.text)
    )


def leaks_in_folder(folder: Path, secrets: Secrets) -> tuple[Finding, ...]:
    """Where a secret stands in a file of an exercise."""
    files = [(str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file()]
    return tuple(sorted(set(_leaks(((name, path.read_bytes()) for name, path in files), secrets, 1))))


def leaks_in_wheel(wheel: Path, secrets: Secrets) -> tuple[Finding, ...]:
    """Where a secret stands in a file of a wheel: one line of it in an exercise, ``RUN`` lines in the package."""
    with zipfile.ZipFile(wheel) as archive:
        files = [(name, archive.read(name)) for name in archive.namelist() if not name.endswith("/")]
    exercise = [each for each in files if each[0].startswith(EXERCISE)]
    package = [each for each in files if not each[0].startswith(EXERCISE)]
    return tuple(sorted({*_leaks(exercise, secrets, 1), *_leaks(package, secrets, RUN)}))


def _leaks(files: Iterable[tuple[str, bytes]], secrets: Secrets, run: int) -> Iterator[Finding]:
    for name, content in files:
        lines = _lines(name, content)
        if lines is None:
            yield Finding(name, 1, "unreadable", "it is no text, so that nobody can see what it holds")
            continue
        yield from (
            Finding(name, number, "mark", f"{line} is a mark of the source")
            for number, line in lines
            if line in BEGIN or line in END
        )
        told = [(number, line) for number, line in lines if len(line) >= LEAST]
        for secret in secrets:
            yield from _leaks_of(name, told, secret, run)


def _leaks_of(name: str, told: Lines, secret: tuple[str, ...], run: int) -> Iterator[Finding]:
    runs = [secret[at : at + run] for at in range(len(secret) - run + 1)]
    for at, (number, line) in enumerate(told):
        following = [text for _, text in told[at : at + run]]
        for hidden in runs:
            if len(following) == run and all(map(str.__contains__, following, hidden)):
                yield Finding(name, number, "leak", f"a line of a solution or a hidden test: {line}")


def _lines(name: str, content: bytes) -> Lines | None:
    """The lines with their numbers, normalised; None where ``content`` is no text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    if not name.endswith(".ipynb"):
        return [(number, _normal(line)) for number, line in enumerate(text.split("\n"), 1)]
    try:
        return [
            (_line_of(text, told), _normal(line))
            for told in _strings(json.loads(text))
            for line in told.split("\n")
        ]
    except json.JSONDecodeError:
        return None


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _line_of(text: str, told: str) -> int:
    before, found, _ = text.partition(json.dumps(told, ensure_ascii=False))
    return before.count("\n") + 1 if found else 1


def _behaviour(source: Path, folder: Path) -> Iterator[Finding]:
    solved, unsolved = (load_definitions(each / SOURCE) for each in (source, folder))
    for function in read_module(source).functions:
        line = _line_of_function(folder / SOURCE, function)
        feedback = evaluate(function, unsolved, SEED)
        if feedback is None or feedback.written:
            yield Finding(SOURCE, line, "unsolved", f"{function} does not fail as not written")
        if evaluate(function, solved, SEED, hidden=True) is not None:
            yield Finding(SOURCE, line, "solved", f"{function}: the solution does not pass its checks")


def _line_of_function(script: Path, function: str) -> int:
    lines = script.read_text(encoding="utf-8").splitlines()
    return next((at for at, line in enumerate(lines, 1) if f'"grade_id": "{function}"' in line), 1)


def _normal(text: str) -> str:
    return " ".join(text.split())


def _tells(line: str) -> bool:
    return len(line) >= LEAST and line not in GENERIC
