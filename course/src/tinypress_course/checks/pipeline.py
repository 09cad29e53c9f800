"""What a pipeline for a byte budget promises: it fits by the statement's sizes, and presses no harder than it must."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import number, refuses, seen
from tinypress_course.checks.once import once
from tinypress_course.checks.recipes import (
    SMALLER,
    TEACHING,
    filled,
    first,
    impossible,
    kinds,
    pressing_kinds,
)
from tinypress_course.models import Plain

DESIGN = "design_pipeline"
MOST = 0.9
SLACK = 0.02  # of sparsity and of the share of neurons: somebody may round up


@dataclass(frozen=True)
class Need:
    """The least that must be done: ``float``, ``int8``, ``zeros`` or ``fewer neurons``, and how much of it."""

    what: str
    sparsity: float = 0.0
    ratio: float = 0.0


def room(budget_bytes: float, float_bytes: float) -> float:
    """The share of the float bytes that there is room for."""
    return 0.85 * budget_bytes / float_bytes


def need(budget_bytes: float, float_bytes: float) -> Need:
    """What the statement asks for."""
    share = room(budget_bytes, float_bytes)
    if share >= 1:
        return Need("float")
    if share >= 8 / 32:
        return Need("int8")
    smallest = (1 + 8 * (1 - MOST)) / 32
    if share >= smallest:
        return Need("zeros", sparsity=1 - (32 * share - 1) / 8)
    return Need("fewer neurons", sparsity=MOST, ratio=1 - math.sqrt(share / smallest))


def sparsity_of(recipe: Plain) -> float:
    """The share of zeros that it makes."""
    return max(
        (step["sparsity"] for step in recipe["steps"] if step.get("technique") == "magnitude"), default=0.0
    )


def ratio_of(recipe: Plain) -> float:
    """The share of neurons that it removes."""
    cuts = [float(step["ratio"]) for step in recipe["steps"] if step.get("technique") in SMALLER]
    return 1 - math.prod(1 - ratio for ratio in cuts)


def share_of(recipe: Plain, ship: str) -> float:
    """The share of the float bytes that its file takes, by the statement's sizes."""
    bits = 32 if first(recipe, "quantize") is None else first(recipe, "quantize").get("bits", 8)
    if bits not in (8, 32):
        raise ValueError(f"it uses {bits} bits, for which the statement gives no size")
    sparsity = sparsity_of(recipe)
    weights = bits if ship == "onnx" or not sparsity else 1 + bits * (1 - sparsity)
    return float(weights / 32 * (1 - ratio_of(recipe)) ** 2)


def _case(budget: int, whole: int) -> Case:
    return Case({"budget_bytes": budget, "float_bytes": whole}, f"{DESIGN}({budget}, {whole})")


@once
def _loose(draw: Draw) -> Iterator[Case]:
    yield _case(2000, 1000)
    yield _case(1_200_000, 1_000_000)
    yield _case(1100, 1000)  # the file itself would fit, its margin does not


@once
def _halfway(draw: Draw) -> Iterator[Case]:
    yield _case(500, 1000)
    yield _case(300, 1000)
    yield _case(990_000, 1_000_000)


@once
def _tight(draw: Draw) -> Iterator[Case]:
    yield _case(200, 1000)
    yield _case(280, 1000)
    yield _case(120, 1000)
    yield _case(70_000, 1_000_000)


@once
def _tiny(draw: Draw) -> Iterator[Case]:
    yield _case(40, 1000)
    yield _case(60, 1000)
    yield _case(10_000, 1_000_000)


@once
def _all(draw: Draw) -> Iterator[Case]:
    for cases in (_loose, _halfway, _tight, _tiny):
        yield from cases(draw)


@once
def _hidden(draw: Draw) -> Iterator[Case]:
    choice = draw.choice
    for low, high in ((1.2, 3.0), (0.31, 1.1), (0.08, 0.28), (0.08, 0.28), (0.005, 0.06), (0.005, 0.06)):
        whole = choice.randrange(50_000, 5_000_000)
        yield _case(int(choice.uniform(low, high) * whole), whole)


def _recipe(answer: Answer) -> Plain:
    return filled(answer["recipe"])


def _fits(case: Case, answer: Answer) -> str | None:
    recipe, share = _recipe(answer), room(case.inputs["budget_bytes"], case.inputs["float_bytes"])
    for ship in recipe["ship"]:
        takes = share_of(recipe, ship)
        if takes > share * (1 + 1e-6):
            size = takes * case.inputs["float_bytes"]
            left = share * case.inputs["float_bytes"]
            return f"its {ship} file takes {number(size)} bytes, and there is room for {number(left)}"
    return None


def _no_harder(case: Case, answer: Answer) -> str | None:
    recipe, due = _recipe(answer), need(case.inputs["budget_bytes"], case.inputs["float_bytes"])
    pressed = pressing_kinds(recipe)
    if due.what == "float":
        return f"it has the steps {kinds(recipe)}, and the float file fits" if recipe["steps"] else None
    if due.what == "int8":
        return (
            None
            if pressed == ["quantize"]
            else f"it presses by {', '.join(pressed) or 'nothing'}, and 8 bits alone fit"
        )
    sparsity, ratio = sparsity_of(recipe), ratio_of(recipe)
    if sparsity > MOST + 1e-9:
        return f"its sparsity is {number(sparsity)}, above {MOST}"
    if due.what == "zeros" and ratio > 0:
        return "it removes neurons, and zeros are enough"
    if sparsity > due.sparsity + SLACK:
        return f"its sparsity is {number(sparsity)}, and less is enough"
    if due.what == "fewer neurons" and sparsity < MOST - SLACK:
        return f"it removes neurons before zeros are at {MOST}"
    return f"it removes {ratio:.0%} of the neurons, and less is enough" if ratio > due.ratio + SLACK else None


def untaught(recipe: Plain) -> list[str]:
    """The steps that hurt and are not followed by one that teaches."""
    steps = [*kinds(recipe), "end"]
    hurts = ("magnitude", *SMALLER)
    return [step for step, then in pairwise(steps) if step in hurts and then not in TEACHING]


def _taught(case: Case, answer: Answer) -> str | None:
    left = untaught(_recipe(answer))
    return f"after {left[0]!r} comes no step that teaches" if left else None


def _in_order(case: Case, answer: Answer) -> str | None:
    steps = kinds(_recipe(answer))
    if "quantize" in steps[:-1]:
        return f"'quantize' is not the last of {steps}"
    return impossible(answer["recipe"])


def sizes(answer: Answer) -> list[float]:
    """The share that each recipe's smallest file takes, in the order of the budgets."""
    return [min(share_of(filled(each), ship) for ship in each["ship"]) for each in answer["recipes"]]


def _budgets(draw: Draw) -> Iterator[Case]:
    for budgets in ([2000, 500, 200, 40], [1300 - 50 * at for at in range(26)]):
        shown = (
            f"{DESIGN}(budget, 1000) for the budgets {budgets if len(budgets) < 6 else '1300, 1250, ... 50'}"
        )
        yield Case({"budget_bytes": budgets, "float_bytes": 1000}, shown)


def _falling(case: Case, answer: Answer) -> str | None:
    taken = sizes(answer)
    for at in range(1, len(taken)):
        if taken[at] > taken[at - 1] + 1e-9:
            wide, narrow = case.inputs["budget_bytes"][at - 1 : at + 1]
            return f"the file for {narrow} bytes is larger than that for {wide}"
    return None


def _no_budget(draw: Draw) -> Iterator[Case]:
    for budget, whole in ((0, 1000), (-5, 1000), (1000, 0), (1000, -1)):
        yield _case(budget, whole)


CHECKS = (
    Check(DESIGN, "does nothing where the float file fits with its margin", _loose, seen(_no_harder)),
    Check(DESIGN, "takes 8 bits alone where they are enough", _halfway, seen(_no_harder)),
    Check(DESIGN, "makes as many zeros as it must", _tight, seen(_no_harder)),
    Check(DESIGN, "removes neurons only below that", _tiny, seen(_no_harder)),
    Check(DESIGN, "fits the budget by the statement's sizes", _all, seen(_fits)),
    Check(DESIGN, "fits other budgets", _hidden, seen(_fits), hidden=True),
    Check(DESIGN, "presses no harder for other budgets", _hidden, seen(_no_harder), hidden=True),
    Check(DESIGN, "lets a step that teaches follow each that hurts", _all, seen(_taught)),
    Check(DESIGN, "quantizes last, and asks for what press can carry out", _all, seen(_in_order)),
    Check(DESIGN, "gives a smaller budget no larger file", _budgets, seen(_falling)),
    Check(DESIGN, "refuses what is no positive number of bytes", _no_budget, refuses()),
)
