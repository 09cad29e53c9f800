"""A module's percent script as the linter sees it: every cell with its line and its step."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext

from tinypress_course.errors import SourceError
from tinypress_course.findings import Finding
from tinypress_course.marks import released
from tinypress_course.module import SOURCE, Module, read_module
from tinypress_course.notebook import script_text

STEP = re.compile(r"^# Step (\d+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell: the line of its marker, its text as it is and parsed, and its step (0 before the first)."""

    line: int
    code: bool
    text: str
    step: int
    tags: tuple[str, ...]
    grading: Mapping[str, Any]
    tree: ast.Module = field(default_factory=lambda: ast.Module([], []), compare=False)

    @property
    def is_solution(self) -> bool:
        """Whether a learner writes in it."""
        return bool(self.grading.get("solution"))

    @property
    def is_test(self) -> bool:
        """Whether points are given for it."""
        return bool(self.grading.get("grade"))

    @property
    def name(self) -> str:
        """The grade_id, where there is one."""
        return str(self.grading.get("grade_id", ""))

    def finding(self, code: str, text: str, line: int = 0) -> Finding:
        """A finding in ``line`` of the cell's text, or at its marker."""
        return Finding(SOURCE, self.line + line, code, text)


@dataclass(frozen=True)
class Script:
    """A module's folder, read; ``rewritten`` is its script as it comes back from a notebook."""

    module: Module
    text: str
    rewritten: str
    readme: str
    cells: tuple[Cell, ...]

    @property
    def code(self) -> tuple[Cell, ...]:
        """The cells that are executed."""
        return tuple(cell for cell in self.cells if cell.code)

    def steps(self) -> Iterator[tuple[int, tuple[Cell, ...]]]:
        """The steps in the order of module.yaml, each with its cells."""
        for step in self.module.steps:
            yield step.number, tuple(cell for cell in self.cells if cell.step == step.number)


def read_script(folder: Path) -> Script:
    """The module in ``folder``.

    Raises:
        CourseError: module.yaml, the script or the README is missing.
        SourceError: the script is no percent script, a cell is no Python, or the marks do not come in pairs.
    """
    module = read_module(folder)
    text, readme = (_text(folder / name) for name in (SOURCE, "README.md"))
    try:
        released(text)
    except SourceError as error:
        raise SourceError(f"{folder / SOURCE}: {error}") from error
    notebook = jupytext.reads(text, fmt="py:percent")
    markers = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith("# %%")]
    if len(markers) != len(notebook.cells):
        raise SourceError(
            f"{folder / SOURCE}: {len(markers)} markers # %% and {len(notebook.cells)} cells. Begin each with one"
        )
    cells, step = [], 0
    for line, each in zip(markers, notebook.cells, strict=True):
        code = each.cell_type == "code"
        heading = None if code else re.search(r"^# (?:Step (\d+))?", each.source, re.MULTILINE)
        step = step if heading is None else int(heading[1] or 0)
        tags, grading = tuple(each.metadata.get("tags", ())), each.metadata.get("nbgrader", {})
        tree = parsed(each.source if code else "", line)
        cells.append(Cell(line, code, each.source, step, tags, grading, tree))
    return Script(module, text, script_text(notebook), readme, tuple(cells))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SourceError(f"{path} is missing: a module has one. Add it") from error


def parsed(text: str, line: int) -> ast.Module:
    """``text``, which begins after ``line`` of the script, as Python.

    Raises:
        SourceError: it is none.
    """
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise SourceError(f"{SOURCE}:{line + (error.lineno or 0)}: {error.msg}. Mend the cell") from error
