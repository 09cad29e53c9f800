"""Rules about the cells that are graded: marks, nbgrader's metadata, tests, points, docstrings, imports."""

from __future__ import annotations

import ast
import difflib
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import tinypress
from tinypress_course.findings import Finding
from tinypress_course.lint.script import Cell, Script, parsed
from tinypress_course.marks import marked, released
from tinypress_course.module import SOURCE

SOLUTION = {"grade": False, "locked": False, "schema_version": 3, "solution": True, "task": False}
TEST = {"grade": True, "locked": True, "schema_version": 3, "solution": False, "task": False}
TAGS = {"imports", "course", "given", "predict", "measure", "reflect", "experiment"}
ALL_POINTS = 100


def marks_in_place(script: Script) -> Iterator[Finding]:
    """A solution cell has solutions, a test cell hidden tests, and no other cell has either."""
    for cell in script.cells:
        kinds = {piece.kind for piece in marked(cell.text)}
        due = {"solution"} if cell.is_solution else {"hidden tests"} if cell.is_test else set()
        for kind in sorted(due - kinds):
            yield cell.finding("marks", f"{cell.name} has no {kind} between marks")
        for kind in sorted(kinds - due):
            yield cell.finding("marks", f"there are {kind} in a cell that is not for them")


def metadata_complete(script: Script) -> Iterator[Finding]:
    """nbgrader's metadata is that of a solution or of a test, whole, with an id of its own."""
    ids = Counter(cell.name for cell in script.cells if cell.grading)
    for cell in script.cells:
        if not cell.grading:
            continue
        rest = {name: value for name, value in cell.grading.items() if name not in ("grade_id", "points")}
        if rest != (TEST if cell.is_test else SOLUTION):
            yield cell.finding("metadata", f"{cell.name or 'a cell'}: the metadata is {rest}")
        if not cell.name or ids[cell.name] > 1:
            yield cell.finding(
                "metadata", f"the grade_id {cell.name!r} is {'there twice' if cell.name else 'missing'}"
            )
        if cell.is_test != ("points" in cell.grading):
            yield cell.finding("metadata", f"{cell.name}: points belong to a test cell, and to no other")


def tests_follow(script: Script) -> Iterator[Finding]:
    """The cell after a solution tests it, visibly and hidden."""
    for cell, after in pairwise((*script.cells, Cell(0, True, "", 0, (), {}))):
        if cell.is_solution and after.name != f"test_{cell.name}":
            yield cell.finding("test", f"{cell.name} is not followed by its test cell, test_{cell.name}")
        if not after.is_test:
            continue
        function = after.name.removeprefix("test_")
        hidden = "\n".join(line for piece in marked(after.text) for line in piece.lines)
        for text, is_hidden in ((released(after.text), False), (hidden, True)):
            if (function, is_hidden) not in _checked(parsed(textwrap.dedent(text), after.line)):
                what = "hidden" if is_hidden else "visible"
                yield after.finding("test", f"{after.name} has no {what} check of {function}")
        if not after.grading.get("points", 0) > 0:
            yield after.finding("points", f"{after.name} gives no points")


def _checked(tree: ast.Module) -> set[tuple[str, bool]]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        (ast.unparse(call.args[0]).rpartition(".")[2], any(word.arg == "hidden" for word in call.keywords))
        for call in calls
        if ast.unparse(call.func) == "check" and call.args
    }


def functions_complete(script: Script) -> Iterator[Finding]:
    """Every function of module.yaml is written once, in its step, and nothing else is."""
    written = {cell.name: cell for cell in script.code if cell.is_solution}
    for step in script.module.steps:
        for function in step.functions:
            cell = written.pop(function, None)
            if cell is None:
                yield Finding("module.yaml", 1, "functions", f"{function} has no solution cell")
            elif cell.step != step.number:
                yield cell.finding(
                    "functions", f"{function} stands in step {cell.step}, module.yaml says {step.number}"
                )
            elif function not in _defined(cell.tree):
                yield cell.finding("functions", f"the cell of {function} does not define it")
    for name, cell in written.items():
        yield cell.finding("functions", f"{name} is not in module.yaml")


def _defined(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {node.name: node for node in nodes}


def points_sum(script: Script) -> Iterator[Finding]:
    """All points together are 100."""
    total = sum(cell.grading.get("points", 0) for cell in script.cells)
    if total != ALL_POINTS:
        yield Finding(SOURCE, 1, "points", f"the points sum to {total:g}, not {ALL_POINTS}")


def docstrings(script: Script) -> Iterator[Finding]:
    """Whatever a learner writes in says first what is wanted."""
    for cell in (cell for cell in script.code if cell.is_solution):
        for name, node in _defined(parsed(released(cell.text), cell.line)).items():
            if not name.startswith("_") and not ast.get_docstring(node):
                yield cell.finding("docstring", f"{name} has no docstring", node.lineno)


def imports_public(script: Script) -> Iterator[Finding]:
    """Of the toolkit only what it offers to everybody."""
    for cell in script.code:
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names if each.name.startswith("tinypress.")]
            elif isinstance(node, ast.ImportFrom) and node.module == "tinypress":
                names = [
                    f"tinypress.{each.name}" for each in node.names if each.name not in tinypress.__all__
                ]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinypress."):
                names = [str(node.module)]
            else:
                continue
            for name in names:
                yield cell.finding(
                    "import", f"{name} is not public: import from tinypress itself", node.lineno
                )


def tags_known(script: Script) -> Iterator[Finding]:
    """A cell of the course says what it is for: one without a tag would be taken for a helper of the learner's."""
    for cell in script.code:
        if not cell.grading and (len(cell.tags) != 1 or not TAGS.issuperset(cell.tags)):
            yield cell.finding(
                "tag", f"the tags are {list(cell.tags)}: give one of {', '.join(sorted(TAGS))}"
            )


def written_by_jupytext(script: Script) -> Iterator[Finding]:
    """The script is what comes back from the notebook, so that editors and Jupyter change nothing by themselves."""
    before, after = script.text.split("\n"), script.rewritten.split("\n")
    for line in difflib.unified_diff(before, after, lineterm="", n=0):
        if line.startswith("@@"):
            number = int(line.split()[1].removeprefix("-").partition(",")[0])
            yield Finding(SOURCE, max(number, 1), "jupytext", "the notebook's script differs from here on")
            return


RULES = (
    marks_in_place,
    metadata_complete,
    tests_follow,
    functions_complete,
    points_sum,
    docstrings,
    imports_public,
    tags_known,
    written_by_jupytext,
)
