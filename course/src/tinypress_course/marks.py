"""The marks in a module's source: what stands between them is the solution, or a test that learners do not see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tinypress_course.errors import SourceError

Kind = Literal["solution", "hidden tests"]
BEGIN: dict[str, Kind] = {"### BEGIN SOLUTION": "solution", "### BEGIN HIDDEN TESTS": "hidden tests"}
END: dict[str, Kind] = {"### END SOLUTION": "solution", "### END HIDDEN TESTS": "hidden tests"}
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")  # what nbgrader writes in the place of a solution


@dataclass(frozen=True)
class Marked:
    """One marked piece of a text: the lines of the two marks, from 1, and what stands between them."""

    kind: Kind
    begin: int
    end: int
    lines: tuple[str, ...]

    def __contains__(self, line: int) -> bool:
        return self.begin <= line <= self.end


def marked(text: str) -> Iterator[Marked]:
    """All marked pieces of ``text``, in their order.

    Raises:
        SourceError: a mark has no partner, stands inside another pair, or shares its line.
    """
    lines = text.split("\n")
    opened: int | None = None
    kind: Kind = "solution"
    for number, line in enumerate(lines, 1):
        mark = line.strip()
        if mark in BEGIN:
            if opened is not None:
                raise SourceError(
                    f"line {number}: {mark} stands inside the {kind} that begin in line {opened}"
                )
            opened, kind = number, BEGIN[mark]
        elif mark in END:
            if opened is None or END[mark] != kind:
                raise SourceError(f"line {number}: {mark} ends what was not begun. Put its BEGIN before it")
            yield Marked(kind, opened, number, tuple(lines[opened : number - 1]))
            opened = None
        elif any(known.removeprefix("### ") in line for known in (*BEGIN, *END)):
            raise SourceError(
                f"line {number}: {mark!r}: give the mark, such as ### BEGIN SOLUTION, a line of its own"
            )
    if opened is not None:
        raise SourceError(f"line {opened}: the {kind} that begin here do not end. Add the END mark")


def released(text: str) -> str:
    """``text`` without solutions and hidden tests: what a learner gets; every other line stays as it is.

    Raises:
        SourceError: the marks do not come in pairs.
    """
    lines = text.split("\n")
    for piece in reversed(list(marked(text))):
        indent = lines[piece.begin - 1].partition("#")[0]
        stub = [indent + line for line in STUB] if piece.kind == "solution" else []
        lines[piece.begin - 1 : piece.end] = stub
    return "\n".join(lines)
