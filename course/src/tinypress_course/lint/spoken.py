"""Rules about what a learner writes down: guesses and conclusions are asked for with dots, and measured."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tinypress_course.findings import Finding
from tinypress_course.lint.script import Cell, Script

ASKS = {"predict": "predict", "reflect": "claim"}


def dots_alone(script: Script) -> Iterator[Finding]:
    """A cell that asks holds one call with the number of its step, and dots for every answer."""
    for cell in script.code:
        calls = [call for name in ASKS.values() for call in _calls(cell, name)]
        asked = next((name for tag, name in ASKS.items() if tag in cell.tags), None)
        if asked is None:
            for call in calls:
                what = ast.unparse(call.func)
                yield cell.finding("dots", f"{what}() stands in a cell without the tag of one", call.lineno)
            continue
        body = cell.tree.body
        if len(body) != 1 or len(calls) != 1 or ast.unparse(calls[0].func) != asked:
            yield cell.finding(
                "dots", f"a cell with the tag {cell.tags[0]} holds one call of {asked}(), and nothing else"
            )
            continue
        if [ast.unparse(each) for each in calls[0].args] != [str(cell.step)]:
            yield cell.finding(
                "dots", f"{asked}() is not given the number of its step, {cell.step}", calls[0].lineno
            )
        for word in calls[0].keywords:
            if ast.unparse(word.value) != "...":
                yield cell.finding(
                    "dots", f"{word.arg} is filled in already: write three dots", word.value.lineno
                )


def answers_are_measured(script: Script) -> Iterator[Finding]:
    """What is claimed was recorded by then; what is guessed is recorded afterwards, in the same step."""
    recorded = [(cell.step, _names(cell, "record")) for cell in script.code]
    for at, cell in enumerate(script.code):
        before = {name for _, names in recorded[:at] for name in names}
        after = {name for step, names in recorded[at + 1 :] if step == cell.step for name in names}
        for name in _names(cell, "claim") - before:
            yield cell.finding("measured", f"the claim {name} is compared with nothing: record it before")
        for name in _names(cell, "predict") - after:
            yield cell.finding(
                "measured", f"the guess {name} is compared with nothing: record it later in the step"
            )
        for name in _names(cell, "predict") & before:
            yield cell.finding("measured", f"{name} is recorded before it is guessed")


def _names(cell: Cell, function: str) -> set[str]:
    return {word.arg for call in _calls(cell, function) for word in call.keywords if word.arg}


def _calls(cell: Cell, function: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(cell.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
    ]


RULES = (dots_alone, answers_are_measured)
