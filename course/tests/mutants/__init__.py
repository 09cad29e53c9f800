"""Wrong implementations as data: the right one with one piece of its text replaced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinypress_course.cells import read_cells

SOURCE = Path(__file__).parents[2] / "modules" / "10_compression" / "compression_dev.py"


@dataclass(frozen=True)
class Mutant:
    """``old`` stands once in the cell that solves ``function``; ``new`` replaces it.

    ``named`` are the names of misconceptions that describe it; empty where no known mistake is like it.
    """

    function: str
    old: str
    new: str
    named: tuple[str, ...] = ()


def mutated(mutant: Mutant) -> str:
    """The module's definitions with the mutant in place."""
    found = [c.text for c in read_cells(SOURCE) if mutant.old in c.text and f" {mutant.function}(" in c.text]
    if len(found) != 1 or found[0].count(mutant.old) != 1:
        raise ValueError(f"{mutant.function}: {mutant.old!r} stands {len(found)} times, or more than once in a cell")
    return SOURCE.read_text().replace(found[0], found[0].replace(mutant.old, mutant.new))
