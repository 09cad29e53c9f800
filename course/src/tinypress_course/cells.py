"""Read a module's percent script: its cells, what each is for, and the definitions that make up the learner's work."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jupytext

from tinypress_course.errors import SourceError

Role = Literal["text", "imports", "solution", "test", "other"]
COURSE_IMPORT = "tinypress_course.learn"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its role, and for solutions and tests its id and points."""

    role: Role
    text: str
    grade_id: str = ""
    points: float = 0.0
    tags: tuple[str, ...] = ()


def read_cells(path: Path) -> list[Cell]:
    """The cells of a ``.py`` percent script or an ``.ipynb`` notebook.

    Raises:
        SourceError: there is no such file, or it is neither.
    """
    return [_cell(each) for each in read_raw(path).cells]


def read_raw(path: Path) -> Any:
    """The notebook in a ``.py`` percent script or an ``.ipynb``, as nbformat has it.

    Raises:
        SourceError: there is no such file, it is neither, or a cell says of itself what no cell can be.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        notebook = jupytext.reads(text, fmt="ipynb" if path.suffix == ".ipynb" else "py:percent")
        for each in notebook.cells:
            each.source.encode()
            _cell(each)
    except FileNotFoundError as error:
        raise SourceError(f"{path} is missing: start the module again or give its folder") from error
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise SourceError(f"{path} cannot be read as a notebook ({type(error).__name__}: {said})") from error
    return notebook


def _cell(raw: Any) -> Cell:
    grading = raw.metadata.get("nbgrader", {})
    tags = tuple(raw.metadata.get("tags", ()))
    role: Role = "other"
    if raw.cell_type != "code":
        role = "text"
    elif grading.get("grade"):
        role = "test"
    elif grading.get("solution"):
        role = "solution"
    elif "imports" in tags:
        role = "imports"
    return Cell(role, raw.source, str(grading.get("grade_id", "")), float(grading.get("points", 0)), tags)


@dataclass(frozen=True)
class Said:
    """A call of predict() or claim() in a cell: what it says, and the names that still have three dots."""

    kind: Literal["prediction", "claim"]
    step: int
    values: dict[str, bool | int | float | str]
    open: tuple[str, ...]


_SAYING: dict[str, Literal["prediction", "claim"]] = {"predict": "prediction", "claim": "claim"}


def said_in(cells: list[Cell]) -> Iterator[Said]:
    """What the calls of predict() and claim() say, read and not executed; only plain values are taken."""
    for cell in cells:
        if cell.role == "text" or not any(f"{name}(" in cell.text for name in _SAYING):
            continue
        for node in ast.walk(_parse(cell)):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SAYING
            ):
                continue
            step = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            given = {each.arg: _plain(each.value) for each in node.keywords if each.arg}
            if isinstance(step, int):
                values = {k: v for k, v in given.items() if isinstance(v, bool | int | float | str)}
                yield Said(
                    _SAYING[node.func.id], step, values, tuple(k for k, v in given.items() if v is ...)
                )


def _plain(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None


def definitions(cells: list[Cell]) -> str:
    """The learner's work as one Python file: imports, solutions, and helpers from cells of their own.

    Of cells that are neither imports nor solutions only what cannot run anything is taken: imports, functions and
    classes. What the course itself brings (``tinypress_course.learn``) and tagged cells stay out.

    Raises:
        SourceError: a cell is no Python.
    """
    parts = []
    for cell in cells:
        if cell.role in ("imports", "solution"):
            _parse(cell)
            parts.append(cell.text)
        elif cell.role == "other" and not cell.tags:
            kept = [node for node in _parse(cell).body if _is_definition(node)]
            parts += [ast.get_source_segment(cell.text, node) or "" for node in kept]
    return "\n\n\n".join(parts) + "\n"


def load_definitions(path: Path, name: str = "learner") -> dict[str, Any]:
    """Execute the definitions in ``path`` and return the namespace. This runs the learner's code.

    Raises:
        SourceError: the file cannot be read, or fails when it is executed.
    """
    return run_definitions(definitions(read_cells(path)), path.name, name)


def run_definitions(source: str, filename: str, name: str = "learner") -> dict[str, Any]:
    """Execute ``source``, which is what ``definitions`` gave, and return the namespace.

    Raises:
        SourceError: it fails.
    """
    module = ModuleType(name)
    _execute(source, filename, module.__dict__)
    return module.__dict__


def run_cells(
    cells: list[Cell], filename: str, name: str = "learner"
) -> tuple[dict[str, Any], dict[str, SourceError]]:
    """Execute the definitions cell by cell, as a notebook does: the namespace, and what is wrong with which solution.

    A solution that is no Python, or fails when it is executed, leaves the others standing.

    Raises:
        SourceError: a cell that is no solution fails, so that nothing can be said of what builds on it.
    """
    module, broken = ModuleType(name), {}
    for cell in cells:
        try:
            _execute(definitions([cell]), filename, module.__dict__)
        except SourceError as error:
            if cell.role != "solution":
                raise
            broken[cell.grade_id] = error
    return module.__dict__, broken


def _execute(source: str, filename: str, namespace: dict[str, Any]) -> None:
    try:
        exec(compile(source, f"<{filename}>", "exec"), namespace)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a learner's top level raises is told to the learner, exit() too
        where = traceback.extract_tb(error.__traceback__)[-1]
        here = where.filename == f"<{filename}>" and where.lineno is not None
        line = source.splitlines()[(where.lineno or 1) - 1].strip() if here else ""
        raise SourceError(
            f"{filename} fails before any function is called, at {line!r}: {type(error).__name__}: {error}. "
            "Mend that line first"
        ) from error


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module != COURSE_IMPORT
    return isinstance(node, ast.Import | ast.FunctionDef | ast.ClassDef)


def _parse(cell: Cell) -> ast.Module:
    what = cell.grade_id or (
        "the imports" if cell.role == "imports" else f"the cell that begins {_begin(cell)!r}"
    )
    try:
        return ast.parse(cell.text)
    except SyntaxError as error:
        line = (error.text or "").strip()[:80]
        raise SourceError(
            f"line {error.lineno or 1} of {what} is no Python ({error.msg}): {line}. Mend it"
        ) from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise SourceError(f"{what} is no Python ({type(error).__name__}: {error}). Mend it") from error


def _begin(cell: Cell) -> str:
    return next((line.strip()[:60] for line in cell.text.splitlines() if line.strip()), "")
