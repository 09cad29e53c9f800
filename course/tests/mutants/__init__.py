"""Wrong implementations as data: the right one with one piece of its text replaced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tinypress_course.cells import Cell, definitions, read_cells

SOURCE = Path(__file__).parents[2] / "modules" / "10_compression" / "compression_dev.py"


@dataclass(frozen=True)
class Mutant:
    """``old`` stands once in the solution of ``function``; ``new`` replaces it.

    ``named`` are the names of misconceptions that describe it; empty where no known mistake is like it.
    """

    function: str
    old: str
    new: str
    named: tuple[str, ...] = ()


@cache
def _cells() -> tuple[Cell, ...]:
    return tuple(read_cells(SOURCE))


def mutated(mutant: Mutant) -> str:
    """The whole module with the mutant in place."""
    right, wrong = _cell(mutant)
    return SOURCE.read_text().replace(right.text, wrong.text)


def mutated_definitions(mutant: Mutant) -> str:
    """The module's definitions alone, with the mutant in place."""
    right, wrong = _cell(mutant)
    return definitions([wrong if cell is right else cell for cell in _cells()])


def _cell(mutant: Mutant) -> tuple[Cell, Cell]:
    """The cell of the right solution, and that of the wrong one."""
    names = (f"def {mutant.function}(", f"class {mutant.function}(")
    right = next(
        cell for cell in _cells() if cell.role == "solution" and any(name in cell.text for name in names)
    )
    head, begin, body = right.text.partition("### BEGIN SOLUTION")
    if body.count(mutant.old) != 1:
        raise ValueError(f"{mutant.function}: {mutant.old!r} stands {body.count(mutant.old)} times")
    return right, replace(right, text=head + begin + body.replace(mutant.old, mutant.new))
