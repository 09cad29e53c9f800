"""Wrong implementations as data: the right one with one piece of its text replaced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinypress_course.cells import read_cells

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


def mutated(mutant: Mutant) -> str:
    """The module's definitions with the mutant in place."""
    cells = [cell.text for cell in read_cells(SOURCE) if cell.role == "solution"]
    text = next(
        text for text in cells if f"def {mutant.function}(" in text or f"class {mutant.function}(" in text
    )
    head, begin, body = text.partition("### BEGIN SOLUTION")
    if body.count(mutant.old) != 1:
        raise ValueError(f"{mutant.function}: {mutant.old!r} stands {body.count(mutant.old)} times")
    return SOURCE.read_text().replace(text, head + begin + body.replace(mutant.old, mutant.new))
