"""Rules about what is read: the way every step goes, titles without numbers, and no number that was typed in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tinypress_course.findings import Finding
from tinypress_course.lint.script import STEP, Cell, Script

HEADINGS = {"Why": "given", "Predict": "predict", "Write": "", "Measure": "measure", "Reflect": "reflect"}
NUMBERED = re.compile(r"^\W*\d|\b(?:module|chapter|lesson)\s+\d", re.IGNORECASE)
WITH_UNIT = re.compile(
    r"\d[\d.,]*\s?(?:%|×|x\b|[kMG]i?B\b|bytes\b|[mµn]s\b|s\b|seconds\b|minutes\b|points\b|times\b|percent\b|fold\b)"
)
QUOTED = re.compile(
    r"\([A-Z][^()]*\b(?:19|20)\d\d\)"
)  # a sentence that names its source, (Sanh and others, 2019)
MEASURED = re.compile(
    r"<!-- measured: begin.*?<!-- measured: end -->", re.DOTALL
)  # written by the book's build
GIVEN = {
    "80 % of the weights": "what step 2 asks to try",
    "75 % less": "8 of 32 bits are left",
    "40 points for what your functions do": "the rubric",
}
"""Numbers that nobody measured: settings, definitions, rules of the course."""


def steps_complete(script: Script) -> Iterator[Finding]:
    """Every step of module.yaml goes why, predict, write, measure, reflect, with a cell to each."""
    for number, cells in script.steps():
        title = script.module.steps[number - 1].title
        if not cells:
            yield Finding("module.yaml", 1, "steps", f"step {number} is not in the script")
            continue
        found = STEP.search(cells[0].text)
        if found is None or found[2] != title:
            yield cells[0].finding("steps", f"step {number} is called {title!r} in module.yaml")
        headings = [heading for cell in cells for heading in _headings(cell) if heading in HEADINGS]
        if headings != list(HEADINGS):
            yield cells[0].finding(
                "steps", f"step {number} goes {', '.join(headings)}, not {', '.join(HEADINGS)}"
            )
            continue
        for heading, tag in HEADINGS.items():
            if not any((tag in cell.tags) if tag else cell.is_solution for cell in _under(cells, heading)):
                yield cells[0].finding(
                    "steps", f"step {number} has no {tag or 'solution'} cell under {heading}"
                )
    for cell in script.cells:
        for _, line in _lines(cell):
            step = STEP.match(line)
            if step is not None and int(step[1]) > len(script.module.steps):
                yield cell.finding("steps", f"step {step[1]} is not in module.yaml")


def _headings(cell: Cell) -> list[str]:
    return [line.removeprefix("## ").strip() for _, line in _lines(cell) if line.startswith("## ")]


def _under(cells: tuple[Cell, ...], heading: str) -> Iterator[Cell]:
    inside = False
    for cell in cells:
        headings = [each for each in _headings(cell) if each in HEADINGS]
        inside = headings[-1] == heading if headings else inside
        if inside:
            yield cell


def titles_describe(script: Script) -> Iterator[Finding]:
    """Numbers of modules come from the book's table of contents, so that no title holds one."""
    if NUMBERED.search(script.module.title):
        yield Finding("module.yaml", 1, "title", f"{script.module.title!r} holds the number of a module")
    for number, line in enumerate(script.readme.split("\n"), 1):
        if line.startswith("#") and NUMBERED.search(line.lstrip("# ")):
            yield Finding("README.md", number, "title", f"{line!r} holds the number of a module")
    for cell in script.cells:
        for number, line in _lines(cell):
            if line.startswith("#") and NUMBERED.search(line.lstrip("# ")):
                yield cell.finding("title", f"{line!r} holds the number of a module", number)


def numbers_are_measured(script: Script) -> Iterator[Finding]:
    """A number with a unit comes from a run: in prose it would be somebody's memory of one."""
    readme = MEASURED.sub(lambda found: "\n" * found[0].count("\n"), script.readme)
    for line, text in _typed(readme):
        yield Finding("README.md", line, "number", text)
    for cell in script.cells:
        if not cell.code:
            for line, text in _typed(cell.text):
                yield cell.finding("number", text, line)


def _typed(text: str) -> Iterator[tuple[int, str]]:
    for known in GIVEN:
        text = re.sub(
            r"\s".join(map(re.escape, known.split())), lambda found: "\n" * found[0].count("\n"), text
        )
    for sentence in re.finditer(r"[^.:;]*(?:\.\d[^.:;]*)*[.:;]?", text):
        if QUOTED.search(sentence[0]):
            continue
        for found in WITH_UNIT.finditer(sentence[0]):
            line = text[: sentence.start() + found.start()].count("\n") + 1
            yield line, f"{found[0]!r} is typed in: let a cell print it, or list it with the linter as given"


def prerequisites_told(script: Script) -> Iterator[Finding]:
    """What a module builds on is in module.yaml, and its README says what for."""
    if not script.module.prerequisites:
        yield Finding("module.yaml", 1, "prerequisites", "none is listed")
    for each in script.module.prerequisites:
        if f"`{each.name}`" not in script.readme:
            yield Finding("README.md", 1, "prerequisites", f"{each.name} is not told")


def _lines(cell: Cell) -> Iterator[tuple[int, str]]:
    if not cell.code:
        yield from enumerate(cell.text.split("\n"), 1)


RULES = (steps_complete, titles_describe, numbers_are_measured, prerequisites_told)
