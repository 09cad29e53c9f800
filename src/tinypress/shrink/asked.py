"""What ``prune_structured`` was asked for, checked before any work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from tinypress.arguments import is_number, is_whole
from tinypress.errors import InputError, ModelError
from tinypress.measure.latency_table import LatencyTable
from tinypress.shrink.budget import Budget, Limit, limit_of
from tinypress.shrink.costs import Per
from tinypress.shrink.follow import Units
from tinypress.shrink.importance import check_method
from tinypress.shrink.keep import check_paths
from tinypress.shrink.saliency import SALIENCIES, Loss, Saliency
from tinypress.shrink.timed import check_table
from tinypress.train.progress import Progress

Recover = Callable[[nn.Module, int], nn.Module]
"""Trains the network after a step, given its number from 1, and returns it."""


@dataclass(frozen=True)
class Asked:
    """The settings of one call; ``ratio`` or ``limit`` is the goal, and ``measure`` goes with a limit of latency."""

    call: str
    ratio: float | None
    limit: Limit | None
    measure: Callable[[nn.Module], float] | None
    importance: Saliency
    together: bool
    per: Per | None
    table: LatencyTable | None
    keep: tuple[str, ...]
    exact: bool
    units: Units
    multiple: int
    min_width: int
    calibration: tuple[Tensor, ...] | None
    losses: tuple[Loss, ...]
    steps: int
    recover: Recover | None
    compare: bool
    seed: int
    progress: Progress


def check_model(call: str, model: object, keep: object) -> None:
    """Check that it is a network, and that it has what ``keep`` names.

    Raises:
        InputError: ``keep`` is no list of names.
        ModelError: it is no module, or has no layer of such a name.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(call, f"model is a {type(model).__name__}", "Give a torch.nn.Module")
    if isinstance(keep, str) or not isinstance(keep, Sequence):
        raise InputError(call, f"keep is {keep!r}, no list of names", "Give keep=['name of a layer']")
    check_paths(call, model, keep)


def check_goal(call: str, ratio: object, budget: object) -> tuple[float | None, Limit | None]:
    """The ratio or the limit that is the goal.

    Raises:
        InputError: neither or both, or one that means nothing.
    """
    if (ratio is None) == (budget is None):
        raise InputError(
            call, "it needs a ratio or a budget, and one of them", "Give ratio=0.5 or budget=Budget(macs=0.5)"
        )
    if budget is not None:
        if not isinstance(budget, Budget):
            raise InputError(
                call, f"budget is a {type(budget).__name__}", "Give budget=Budget(macs=0.5), for example"
            )
        return None, limit_of(call, budget)
    if not is_number(ratio) or not 0 <= ratio < 1:
        raise InputError(
            call, f"ratio is {ratio!r}, not a fraction with 0 <= ratio < 1", "Give the fraction to remove"
        )
    return float(ratio), None


def check_choices(call: str, importance: object, scope: object, per: object, units: object) -> None:
    """Check the settings that are one of several words.

    Raises:
        InputError: one is another word.
    """
    check_method(call, importance, SALIENCIES)
    choices: tuple[tuple[object, tuple[object, ...]], ...] = (
        (scope, ("group", "global")),
        (per, (None, *get_args(Per))),
        (units, get_args(Units)),
    )
    for value, allowed in choices:
        if value not in allowed:
            raise InputError(call, f"{value!r} is none of {allowed}", "Choose one of them")


def check_per(call: str, per: object, model: nn.Module, table: object) -> None:
    """Check that a table of times is given where importance is ranked by time, and only there.

    Raises:
        InputError: it is missing, of no use, or of another network.
    """
    if (per == "latency_ms") != (table is not None):
        raise InputError(
            call,
            "per='latency_ms' and a table of the layers' times go together",
            "Give table=read_latency_table(path), which `tinypress latency-table` measures; or neither",
        )
    if table is not None:
        check_table(call, model, table)


def whole_number(call: str, name: str, value: object, least: int) -> int:
    """``value`` as an int.

    Raises:
        InputError: it is none, or below ``least`` or above what a seed or a width can be.
    """
    if not is_whole(value) or not least <= value < 2**63:
        raise InputError(call, f"{name} is {value!r}", f"Give a whole number from {least}")
    return int(value)


def yes_or_no(call: str, name: str, value: object) -> bool:
    """``value`` as a bool.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, bool):
        raise InputError(call, f"{name} is {value!r}", "Give True or False")
    return value


def check_progress(call: str, progress: object) -> None:
    """Check that somebody can be told.

    Raises:
        InputError: it is no function.
    """
    if not callable(progress):
        raise InputError(
            call,
            f"progress is a {type(progress).__name__}",
            "Give a function of what is done, how many and of how many, or leave it out",
        )


def check_evidence(
    call: str, calibration: object, losses: object, recover: object
) -> tuple[tuple[Tensor, ...] | None, tuple[Loss, ...]]:
    """The samples and the losses that importance is worked out from.

    Raises:
        InputError: they are no tensors and no functions, or ``recover`` is none of two arguments.
    """
    if calibration is not None and not (
        isinstance(calibration, tuple | list) and all(isinstance(x, Tensor) and x.dim() for x in calibration)
    ):
        raise InputError(
            call,
            f"calibration is a {type(calibration).__name__}, not a tuple of tensors [N, ...]",
            "Give calibration=(inputs,)",
        )
    if not isinstance(losses, tuple | list) or not all(callable(loss) for loss in losses):
        raise InputError(
            call, "losses is no list of functions", "Give losses=[lambda model: loss(model(inputs), targets)]"
        )
    if recover is not None and not _takes_two(recover):
        raise InputError(
            call, "recover is no function of two arguments", "Give recover=lambda model, step: trained model"
        )
    return None if calibration is None else tuple(calibration), tuple(losses)


def _takes_two(function: object) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(None, 1)
    except TypeError:
        return False
    except ValueError:  # one that does not tell its arguments
        return True
    return True
