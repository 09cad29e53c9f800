"""Which functions are like the toolkit's own source, or like another submission: named for the teacher, not punished.

A function's body is read as a syntax tree, written out as tokens without names of variables and without docstrings, and
every window of neighbouring tokens becomes a number. Of neighbouring windows one is kept (winnowing: Schleimer,
Wilkerson and Aiken, 2003), so that a copy is found wherever it begins.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tinypress
from tinypress_course.cells import Cell
from tinypress_course.grade.rubric import Likeness

Prints = frozenset[int]
HELPERS = "functions of their own"


@dataclass(frozen=True)
class Alike:
    """``share`` of the prints of a learner's ``function`` are found in ``other``."""

    learner: str
    function: str
    other: str
    share: float


def prints_of(cells: Iterable[Cell], given: Iterable[Cell], rubric: Likeness) -> dict[str, Prints]:
    """The prints of each function's own cell, without those of the exercise's ``given`` text.

    Those of cells that a learner added come together, under ``HELPERS``.
    """
    skeleton = {cell.grade_id: cell.text for cell in given if cell.role == "solution"}
    found: dict[str, Prints] = {}
    helpers: Prints = frozenset()
    for cell in cells:
        if cell.role == "solution" and cell.grade_id in skeleton:
            known = _prints(skeleton[cell.grade_id], rubric)
            found[cell.grade_id] = _prints(cell.text, rubric) - known
        elif cell.role == "other" and not cell.tags:
            helpers |= _prints(cell.text, rubric)
    return found | {HELPERS: helpers} if helpers else found


def toolkit_prints(rubric: Likeness) -> dict[str, Prints]:
    """The prints of each file of the installed toolkit in which one of its public functions stands, or a neighbour."""
    found = {Path(source) for name in tinypress.__all__ if (source := _file_of(getattr(tinypress, name)))}
    root = Path(inspect.getfile(tinypress)).parent
    folders = {path.parent for path in found if path.is_relative_to(root)}  # an alias may come from torch
    beside = {path for folder in folders for path in folder.glob("*.py") if path.name != "__init__.py"}
    return {
        f"tinypress/{path.relative_to(root)}": _prints(path.read_text(encoding="utf-8"), rubric)
        for path in sorted(beside)
    }


def like_toolkit(
    learner: str, prints: Mapping[str, Prints], toolkit: Mapping[str, Prints], rubric: Likeness
) -> list[Alike]:
    """The functions of one learner that are like a file of the toolkit."""
    found = []
    for function, own in prints.items():
        if len(own) < rubric.least_prints:
            continue
        share, other = max((len(own & theirs) / len(own), name) for name, theirs in toolkit.items())
        if share >= rubric.toolkit:
            found.append(Alike(learner, function, other, share))
    return found


def like_each_other(submissions: Mapping[str, Mapping[str, Prints]], rubric: Likeness) -> list[Alike]:
    """The functions that are like those of another learner, told for both."""
    found = []
    for learner, prints in submissions.items():
        for function, own in prints.items():
            if len(own) < rubric.least_prints:
                continue
            for other, theirs in submissions.items():
                share = len(own & theirs.get(function, frozenset())) / len(own)
                if other != learner and share >= rubric.submission:
                    found.append(Alike(learner, function, other, share))
    return found


def _file_of(public: object) -> str | None:
    if not callable(public):
        return None
    try:
        return inspect.getsourcefile(public)
    except TypeError:
        return None


def _prints(source: str, rubric: Likeness) -> Prints:
    """Winnowed fingerprints of all bodies in ``source``; none where it is no Python."""
    try:
        tree = ast.parse(source)
        tokens = [token for body in _bodies(tree) for token in (*_tokens(body), "<end>")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    hashes = [
        int.from_bytes(hashlib.blake2b("\0".join(window).encode(), digest_size=6).digest())
        for window in zip(*(tokens[start:] for start in range(rubric.window)), strict=False)
    ]
    starts = range(max(0, len(hashes) - rubric.guarantee + 1))
    return frozenset(min(hashes[at : at + rubric.guarantee]) for at in starts)


def _bodies(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """The bodies of functions that are not within another function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.body[1:] if ast.get_docstring(node) is not None else node.body
        else:
            yield from _bodies(node)


def _tokens(body: Iterable[ast.AST]) -> Iterator[str]:
    """A tree as a row of tokens: kinds of nodes, names of attributes and keywords, constants; no names of variables."""
    for node in body:
        if isinstance(node, ast.expr_context):
            continue
        match node:
            case ast.Constant():
                yield f"={node.value!r}"[:40]
            case ast.Attribute():
                yield f".{node.attr}"
            case ast.keyword():
                yield f"{node.arg}="
            case ast.Name() | ast.arg():
                yield "name"
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef() if ast.get_docstring(node) is not None:
                yield type(node).__name__
                yield from _tokens([node.args, *node.body[1:]])
                continue
            case _:
                yield type(node).__name__
        yield from _tokens(ast.iter_child_nodes(node))
