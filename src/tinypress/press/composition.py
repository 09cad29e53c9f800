"""What each technique asks of the steps before it and brings to those after it, as data.

``contract_of`` is the one place that knows; the order of a recipe is judged by it before any work (``refusal``), and
``kept_notes`` in ``ensured.py`` looks at the tensors after every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from tinypress.errors import RecipeError
from tinypress.facts import Compressed
from tinypress.press.step import (
    Distill,
    Factorize,
    Gradual,
    Layers,
    Magnitude,
    Qat,
    Quantize,
    Recover,
    Shrink,
    Step,
    Structured,
    Student,
)


class Promise(Enum):
    """What holds of a network once a step has brought it, until a step breaks it."""

    ZEROS = "pruned weights are zero"
    PATTERN = "in every group of a pattern so many weights are zero"
    INTEGERS = "weights lie on integers, with scales that were measured on this network"


@dataclass(frozen=True)
class Contract:
    """What a step does to a network, as far as the steps around it have to know.

    ``ensures``: what holds after it. ``breaks``: what it cannot keep of the steps before it, and why, as the end of a
    sentence. ``trains``: it takes optimizer steps, so it needs train data and a loss. ``restarts``: it throws away
    what came in and leaves an untrained network. ``keeps_widths``: a parameter that stays keeps its shape.
    ``moves_activations``: layers behind it see other values than before, and no training followed in the same step.
    """

    ensures: frozenset[Promise] = frozenset()
    breaks: Mapping[Promise, str] = field(default_factory=dict)
    trains: bool = False
    restarts: bool = False
    keeps_widths: bool = True
    moves_activations: bool = False


@dataclass(frozen=True)
class Refusal:
    """An order that cannot be: which, why, and what to do."""

    order: str
    reason: str
    remedy: str


_OFF = "it would move weights off their integers"
_CUT = "scales and ranges belong to the layers as they were"
_ZERO = "weights that became zero would keep their old integers in the file"
_GROUPS = "removing inputs moves the groups of its pattern apart"
_FILL = "a product of two layers would fill the zeros again"
_TWICE = "its weights lie on integers already"


def contract_of(step: Step) -> Contract:
    """What ``step`` ensures, cannot keep, and does; a new technique states it here."""
    match step:
        case Magnitude():
            patterned = frozenset({Promise.PATTERN}) if step.pattern is not None else frozenset()
            return Contract(
                ensures=patterned | {Promise.ZEROS}, breaks={Promise.INTEGERS: _ZERO}, moves_activations=True
            )
        case Gradual():
            return Contract(ensures=frozenset({Promise.ZEROS}), breaks={Promise.INTEGERS: _OFF}, trains=True)
        case Shrink() | Structured():
            return Contract(
                breaks={Promise.INTEGERS: _CUT, Promise.PATTERN: _GROUPS},
                trains=isinstance(step, Structured) and (step.rounds > 1 or step.search),
                keeps_widths=False,
                moves_activations=True,  # the last cut is not trained after, or only for a short while
            )
        case Factorize():
            return Contract(
                breaks={Promise.INTEGERS: _CUT, Promise.ZEROS: _FILL},
                keeps_widths=False,
                moves_activations=True,
            )
        case Layers():
            return Contract(breaks={Promise.INTEGERS: _CUT}, moves_activations=True)
        case Student():
            return Contract(breaks={Promise.INTEGERS: _CUT}, restarts=True, keeps_widths=False)
        case Recover() | Distill():
            return Contract(breaks={Promise.INTEGERS: _OFF}, trains=True)
        case Quantize():
            return Contract(ensures=frozenset({Promise.INTEGERS}), breaks={Promise.INTEGERS: _TWICE})
        case Qat():
            return Contract(
                ensures=frozenset({Promise.INTEGERS}), breaks={Promise.INTEGERS: _TWICE}, trains=True
            )
    assert_never(step)


def refusal(steps: Sequence[Step]) -> Refusal | None:
    """Why ``steps`` cannot be carried out in this order; None where they can."""
    held: dict[Promise, str] = {}
    untrained = False
    for place, step in enumerate(steps):
        contract, late = contract_of(step), step.technique
        for promise, early in held.items():
            if promise in contract.breaks:
                remedy = (
                    f"Put {early!r} last" if promise is Promise.INTEGERS else f"Put {late!r} before {early!r}"
                )
                return Refusal(f"{late!r} after {early!r}", contract.breaks[promise], remedy)
        if contract.restarts and place > 0:
            return Refusal(
                f"a new {late!r} after {steps[place - 1].technique!r}",
                "an untrained network throws earlier steps away",
                f"Put {late!r} first",
            )
        untrained = contract.restarts or (untrained and not contract.trains)
        held |= dict.fromkeys(contract.ensures, late)
    if untrained:
        made = steps[0].technique
        return Refusal(f"a {made!r}", "it never trains it", "Add a 'recover' or 'distill' step")
    return None


def check_state(step: Step, before: Compressed) -> None:
    """Refuse ``step`` on a network that holds what it cannot keep; a recipe was judged as a whole before.

    Raises:
        RecipeError: with the reason.
    """
    holds = {Promise.ZEROS: bool(before.pruned), Promise.INTEGERS: before.plan is not None}
    for promise, reason in contract_of(step).breaks.items():
        if holds.get(promise, False):
            raise RecipeError(
                f"step {step.model_dump()}",
                f"of the network that comes in {promise.value}: {reason}",
                f"Put {step.technique!r} before the step that brought it",
            )


def batch_norm_is_stale(steps: Sequence[Step]) -> bool:
    """Whether batch norms hold moments of values that they no longer see: of ``steps`` none trained after the last
    that moved activations."""
    stale = False
    for step in steps:
        contract = contract_of(step)
        stale = contract.moves_activations or (stale and not contract.trains)
    return stale
