"""``prune_structured``: a smaller dense network of the same class, cut to a share or to a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Change, Compressed, Note
from tinypress.graph import Traced, trace
from tinypress.shrink.budget import Budget, Limit, limit_of
from tinypress.shrink.choose import Block, Cuts, blocks_of, by_budget, by_rank, by_share, cuts_of
from tinypress.shrink.costs import Cost, Costing, costing
from tinypress.shrink.groups import Survey, Units, note, survey
from tinypress.shrink.importance import check_method
from tinypress.shrink.keep import check_paths, held_by
from tinypress.shrink.observe import activities
from tinypress.shrink.reference import removed_labels
from tinypress.shrink.saliency import (
    OF_ACTIVATIONS,
    OF_THE_LOSS,
    SALIENCIES,
    Evidence,
    Loss,
    Saliency,
    gradients,
    score_units,
)
from tinypress.shrink.surgery import Cut, cut_out, operate

Recover = Callable[[nn.Module, int], nn.Module]
"""Trains the network after a step, given its number from 1, and returns it."""


@dataclass(frozen=True)
class _Plan:
    """What was asked for, checked."""

    call: str
    ratio: float | None
    budget: Limit | None
    measure: Callable[[nn.Module], float] | None
    importance: Saliency
    together: bool
    per: Cost | None
    keep: tuple[str, ...]
    exact: bool
    units: Units
    multiple: int
    min_width: int
    seed: int


def prune_structured(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    ratio: float | None = None,
    budget: Budget | None = None,
    importance: Saliency = "l2",
    scope: Literal["group", "global"] = "group",
    per: Cost | None = None,
    keep: Sequence[str] = (),
    exact: bool = False,
    units: Units = "heads",
    multiple: int = 1,
    min_width: int = 1,
    calibration: tuple[Tensor, ...] | None = None,
    losses: Sequence[Loss] = (),
    steps: int = 1,
    recover: Recover | None = None,
    seed: int = 0,
) -> Compressed:
    """Remove neurons, channels and heads with all that hangs on them, of any network that torch can export.

    Which dimensions are tied is read off the exported graph. The result is of the same class, can be trained,
    exported and pruned again, and has been run: it computes what the network computes with the removed units read
    as zero. What is left alone is said in ``notes``, with the reason.

    Args:
        model: the network; not changed.
        example_inputs: one tensor [B, ...] per argument of ``forward``.
        ratio: fraction of the units to remove, 0 <= ratio < 1. Give this or ``budget``.
        budget: the most that the result may cost; it ends below, within one smallest step.
        importance: see ``saliency.score_units``; ``taylor`` and ``hessian`` need ``losses``, ``activation`` and
            ``wanda`` need ``calibration``.
        scope: ``group`` removes ``ratio`` of each group, ``global`` the least important of all groups. A budget
            is always met globally.
        per: rank by importance per parameter, byte or MAC that a unit costs.
        keep: paths of layers, or of modules with all that is in them, that keep their units. The network's outputs
            keep theirs anyway.
        exact: also keep units that a norm runs over, without which the others come out differently.
        units: what leaves of an attention, whole heads or the same places of every head.
        multiple: leave widths that this number divides, where a group is that wide.
        min_width: units that stay in every group.
        calibration: samples, one tensor [N, ...] per argument of ``forward``.
        losses: functions from the network to its loss on a batch.
        steps: reach the goal in so many steps of equal factors, with ``recover`` after each.
        recover: trains the network between the steps.
        seed: of ``random``.

    Raises:
        InputError: a setting out of range, neither or both of ratio and budget, or no data for the importance.
        ModelError: the network does not run or cannot be traced, nothing in it can leave, or the budget cannot be met.
    """
    call = f"prune_structured({type(model).__name__}, ratio={ratio!r}, budget={budget!r}, importance={importance!r})"
    plan = _checked(
        call,
        model,
        ratio,
        budget,
        importance,
        scope,
        per,
        keep,
        exact,
        units,
        multiple,
        min_width,
        steps,
        seed,
    )
    current, changes = model, list[Change]()
    notes: dict[Note, None] = {}
    for step in range(1, steps + 1):
        traced = trace(current, example_inputs)
        found = survey(traced, current, exact=plan.exact, units=plan.units)
        plan = _in_numbers(plan, traced, found, current)
        goal = _goal(plan, traced, found, current, steps - step + 1, steps)
        evidence = _evidence(plan, traced, found, current, calibration, losses)
        done = _step(goal, traced, found, current, evidence)
        changes = _joined(changes, done.changes)
        notes.update(dict.fromkeys(done.notes))
        current = done.model
        if recover is not None:
            current = recover(current, step)
            if not isinstance(current, nn.Module):
                raise InputError(call, f"recover returned a {type(current).__name__}", "Return the network")
    return Compressed(current, tuple(changes), tuple(notes))


def _checked(
    call: str,
    model: object,
    ratio: object,
    budget: Budget | None,
    importance: Saliency,
    scope: str,
    per: Cost | None,
    keep: Sequence[str],
    exact: bool,
    units: Units,
    multiple: object,
    min_width: object,
    steps: object,
    seed: int,
) -> _Plan:
    if not isinstance(model, nn.Module):
        raise ModelError(call, f"model is a {type(model).__name__}", "Give a torch.nn.Module")
    if (ratio is None) == (budget is None):
        raise InputError(
            call, "it needs a ratio or a budget, and one of them", "Give ratio=0.5 or budget=Budget(macs=0.5)"
        )
    if ratio is not None and (
        isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1
    ):
        raise InputError(
            call, f"ratio is {ratio!r}, not a fraction with 0 <= ratio < 1", "Give the fraction to remove"
        )
    check_method(call, importance, SALIENCIES)
    choices = (
        (scope, ("group", "global")),
        (per, (None, "parameters", "bytes", "macs")),
        (units, ("heads", "head width")),
    )
    for value, allowed in choices:
        if value not in allowed:
            raise InputError(call, f"{value!r} is none of {allowed}", "Choose one of them")
    for name, number in (("multiple", multiple), ("min_width", min_width), ("steps", steps)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(call, f"{name} is {number!r}", "Give a whole number from 1")
    assert isinstance(multiple, int)
    assert isinstance(min_width, int)
    check_paths(call, model, keep)
    return _Plan(
        call, ratio, limit_of(call, budget), budget.measure if budget else None, importance, scope == "global",
        per, tuple(keep), exact, units, multiple, min_width, seed,
    )  # fmt: skip


def _in_numbers(plan: _Plan, traced: Traced, found: Survey, model: nn.Module) -> _Plan:
    """The plan with a budget that is a share of what the network costs now turned into a number."""
    if plan.budget is None or plan.measure is not None or plan.budget[1] >= 1:
        return plan
    cost, share = plan.budget
    return replace(plan, budget=(cost, share * _now(plan, traced, found, model)))


def _now(plan: _Plan, traced: Traced, found: Survey, model: nn.Module) -> float:
    assert plan.budget is not None
    if plan.measure is not None:
        return plan.measure(model)
    return costing(traced, found, model, plan.budget[0])(removed_labels(found, {}))  # type: ignore[arg-type]


def _goal(plan: _Plan, traced: Traced, found: Survey, model: nn.Module, left: int, steps: int) -> _Plan:
    """What this step has to reach with ``left`` to go: the same factor each, so that the last ends at the goal."""
    if plan.ratio is not None:
        return replace(plan, ratio=1 - (1 - plan.ratio) ** (1 / steps))
    if left == 1 or plan.budget is None:
        return plan
    cost, most = plan.budget
    now = _now(plan, traced, found, model)
    return replace(plan, budget=(cost, now * min(most / now, 1.0) ** (1 / left)))


def _evidence(
    plan: _Plan,
    traced: Traced,
    found: Survey,
    model: nn.Module,
    calibration: tuple[Tensor, ...] | None,
    losses: Sequence[Loss],
) -> Evidence:
    if plan.importance in OF_THE_LOSS:
        return gradients(plan.call, model, losses)
    if plan.importance in OF_ACTIVATIONS:
        return activities(plan.call, traced, found, model, calibration)
    return Evidence()


def _step(plan: _Plan, traced: Traced, found: Survey, model: nn.Module, evidence: Evidence) -> Compressed:
    notes = [note(layer, fence, model) for layer, fence in found.left.items()]
    blocks: list[list[Block]] = []
    cost = None if plan.per is None else costing(traced, found, model, plan.per)
    for number, group in enumerate(found.groups):
        held = held_by(group.producers, plan.keep)
        if held is not None:
            text = f"{', '.join(group.producers)}: all units are kept as asked (keep={held!r})"
            notes.append(Note("TP303", "note", group.producers[0], text))
            continue
        own = _blocks(plan, found, model, evidence, number, cost)
        if own:
            blocks.append(own)
        else:
            text = f"{group.producers[0]} keeps its {group.width} units: fewer than one step can leave"
            notes.append(Note("TP303", "note", group.producers[0], text))
    if not blocks:
        reasons = "; ".join(each.text for each in notes) or "it has no layer with neurons"
        raise ModelError(plan.call, f"nothing can leave ({reasons})", "Quantize it, or prune single weights")
    cuts = _chosen(plan, traced, found, model, blocks)
    for number in cuts:
        group = found.groups[number]
        if group.norms:
            text = f"{', '.join(group.producers)}: {group.norms[0]} now runs over fewer units, so the others differ"
            notes.append(Note("TP304", "note", group.producers[0], text))
    outcome = operate(model, [Cut(found.groups[n], gone) for n, gone in cuts.items()], traced, found)
    return Compressed(outcome.model, outcome.changes, (*notes, *outcome.notes))


def _blocks(
    plan: _Plan, found: Survey, model: nn.Module, evidence: Evidence, number: int, cost: Costing | None
) -> list[Block]:
    group = found.groups[number]
    scores = score_units(model, group, number, plan.importance, evidence, plan.seed)
    if plan.importance not in OF_THE_LOSS and float(scores.mean()) > 0:
        scores = scores / scores.mean()
    price = 1.0
    if cost is not None:
        nothing, one = (cost(removed_labels(found, cut)) for cut in ({}, {number: (0,)}))
        price = max(nothing - one, 1) / max(nothing, 1)
    return blocks_of(number, group, scores, multiple=plan.multiple, min_width=plan.min_width, price=price)


def _chosen(
    plan: _Plan, traced: Traced, found: Survey, model: nn.Module, blocks: Sequence[Sequence[Block]]
) -> Cuts:
    widths = [found.groups[own[0].group].width for own in blocks]
    if plan.ratio is not None:
        return (by_rank if plan.together else by_share)(blocks, widths, plan.ratio)
    assert plan.budget is not None
    cost, most = plan.budget
    if plan.measure is not None:
        measure = plan.measure

        def of(cuts: Cuts) -> float:
            return measure(cut_out(model, [Cut(found.groups[n], gone) for n, gone in cuts.items()]))
    else:
        counted = costing(traced, found, model, cost)  # type: ignore[arg-type]

        def of(cuts: Cuts) -> float:
            return counted(removed_labels(found, cuts))

    if of({}) <= most:
        return {}
    cuts = by_budget(blocks, of, most, give_back=plan.measure is None)
    if cuts is None:
        least = of(cuts_of([block for own in blocks for block in own]))
        raise ModelError(
            plan.call,
            f"{cost} cannot fall to {most:.6g}: with every unit gone that may leave they are {least:.6g}",
            "Allow more, keep fewer layers, or lower multiple and min_width",
        )
    return cuts


def _joined(before: Sequence[Change], now: Sequence[Change]) -> list[Change]:
    """Changes of several steps as one: what was before the first, what is after the last."""
    joined = {(each.layer, each.what): each for each in before}
    for each in now:
        old = joined.get((each.layer, each.what))
        joined[each.layer, each.what] = each if old is None else replace(each, was=old.was)
    return list(joined.values())
