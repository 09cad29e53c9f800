"""A learner's file taken apart, with nothing of it executed: the cells, and the pieces for the sandbox to execute."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tinypress_course.cells import Cell, definitions, read_cells
from tinypress_course.errors import SourceError
from tinypress_course.grade.submission import Submission
from tinypress_course.journal import Journal, read_journal
from tinypress_course.module import JOURNAL


@dataclass(frozen=True)
class Work:
    """``pieces`` are (name, source), executed one after the other: one that fails leaves the others as they are.

    ``broken`` says of cells that are no Python why.
    """

    cells: tuple[Cell, ...]
    pieces: tuple[tuple[str, str], ...]
    broken: dict[str, str]


def read_work(submission: Submission) -> Work:
    """The learner's file.

    Raises:
        SourceError: it is no notebook.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / submission.work
        path.write_text(submission.files[submission.work], encoding="utf-8")
        try:
            cells = read_cells(path)
        except SourceError as error:
            raise SourceError(str(error).replace(str(path), submission.work)) from error
    pieces, broken = [], dict[str, str]()
    for place, cell in enumerate(cells, start=1):
        name = cell.grade_id or f"cell {place}"
        try:
            parts = [part for part in _parts(cell) if part.strip()]
        except SourceError as error:
            broken[name] = str(error)
        except Exception as error:  # a text made to break the parser
            broken[name] = f"it cannot be read as Python ({type(error).__name__})"
        else:
            pieces += [(name, part) for part in parts]
    return Work(tuple(cells), tuple(pieces), broken)


def _parts(cell: Cell) -> Iterator[str]:
    """A solution whole, as a notebook runs it; of other cells each statement, so that one import can be missing."""
    whole = definitions([cell])  # says where it is no Python
    if cell.role not in ("imports", "other"):
        yield whole
        return
    for node in ast.parse(cell.text).body:
        decorators = getattr(node, "decorator_list", ())
        first = min([node.lineno, *(each.lineno for each in decorators)])
        text = "\n".join(cell.text.splitlines()[first - 1 : node.end_lineno])
        kept = definitions([replace(cell, text=text)])
        yield text if decorators and kept.strip() else kept


def read_own_journal(submission: Submission) -> Journal:
    """The learner's journal, empty where there is none.

    Raises:
        JournalError: the file is no journal.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / JOURNAL
        if JOURNAL in submission.files:
            path.write_text(submission.files[JOURNAL], encoding="utf-8")
        return read_journal(path)
