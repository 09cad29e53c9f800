"""``prune_structured``: a smaller dense network of the same class, cut to a share or to a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Change, Compressed, Note
from tinypress.graph import Traced, trace
from tinypress.graph.trace import check_runs
from tinypress.layers import copy_model, named_tensors
from tinypress.measure.latency_table import LatencyTable
from tinypress.shrink.asked import (
    Asked,
    Recover,
    check_choices,
    check_evidence,
    check_goal,
    check_model,
    check_per,
    check_progress,
    whole_number,
    yes_or_no,
)
from tinypress.shrink.budget import Budget, measured
from tinypress.shrink.candidates import blocks_of_all, chosen
from tinypress.shrink.collector import without_collector
from tinypress.shrink.costs import Per, costing
from tinypress.shrink.cutting import Cut
from tinypress.shrink.follow import Units
from tinypress.shrink.groups import Survey, note, survey
from tinypress.shrink.observe import activities
from tinypress.shrink.reference import removed_labels
from tinypress.shrink.saliency import (
    OF_ACTIVATIONS,
    OF_THE_LOSS,
    Evidence,
    Loss,
    Saliency,
    gradients,
)
from tinypress.shrink.surgery import operate
from tinypress.train.progress import Progress, silent


def prune_structured(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    ratio: float | None = None,
    budget: Budget | None = None,
    importance: Saliency = "l2",
    scope: Literal["group", "global"] = "group",
    per: Per | None = None,
    table: LatencyTable | None = None,
    keep: Sequence[str] = (),
    exact: bool = False,
    units: Units = "heads",
    multiple: int = 1,
    min_width: int = 1,
    calibration: tuple[Tensor, ...] | None = None,
    losses: Sequence[Loss] = (),
    steps: int = 1,
    recover: Recover | None = None,
    compare: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Compressed:
    """Remove neurons, channels and heads with all that hangs on them, of any network that torch can export.

    Which dimensions are tied is read off the exported graph. The result is of the same class, can be trained,
    exported and pruned again, and has been run: it computes what the network computes with the removed units read
    as zero (unless ``compare=False``). What is left alone is said in ``notes``, with the reason.

    Args:
        model: the network; not changed.
        example_inputs: one tensor [B, ...] per argument of ``forward``.
        ratio: fraction of the units to remove, 0 <= ratio < 1. Give this or ``budget``.
        budget: the most that the result may cost; it ends below, within one smallest step.
        importance: see ``saliency.score_units``; ``taylor`` and ``hessian`` need ``losses``, ``activation`` and
            ``wanda`` need ``calibration``.
        scope: ``group`` removes ``ratio`` of each group, ``global`` the least important of all groups. A budget
            is always met globally.
        per: rank by importance per parameter, byte, MAC or measured millisecond that a unit costs.
        table: what the layers take, for ``per="latency_ms"``; see ``tinypress latency-table``.
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
        compare: run the result and the masked whole network on the example, and compare them. Without it the result is
            run without values, and does the same operations on the sizes that are due; what only values show, such as
            an example that the network fails on, is not noticed. For networks that take long to run.
        seed: of ``random``.
        progress: told after each step, and of each smaller network that is measured.

    Raises:
        InputError: a setting out of range, neither or both of ratio and budget, or no data for the importance.
        ModelError: the network does not run or cannot be traced, nothing in it can leave, or the budget cannot be met.
    """
    call = f"prune_structured({type(model).__name__}, ratio={ratio!r}, budget={budget!r}, importance={importance!r})"
    check_model(call, model, keep)
    fraction, limit = check_goal(call, ratio, budget)
    check_choices(call, importance, scope, per, units)
    check_per(call, per, model, table)
    samples, functions = check_evidence(call, calibration, losses, recover)
    check_progress(call, progress)
    asked = Asked(
        call=call,
        ratio=fraction,
        limit=limit,
        measure=None if budget is None else budget.measure,
        importance=importance,
        together=scope == "global",
        per=per,
        table=table,
        keep=tuple(keep),
        exact=exact,
        units=units,
        multiple=whole_number(call, "multiple", multiple, 1),
        min_width=whole_number(call, "min_width", min_width, 1),
        calibration=samples,
        losses=functions,
        steps=whole_number(call, "steps", steps, 1),
        recover=recover,
        compare=yes_or_no(call, "compare", compare),
        seed=whole_number(call, "seed", seed, 0),
        progress=progress,
    )
    current, changes = model, list[Change]()
    notes: dict[Note, None] = {}
    whole: dict[tuple[str, ...], int] = {}
    for step in range(1, asked.steps + 1):
        with without_collector() if asked.measure is None else nullcontext():
            traced, check = _traced(asked, current, example_inputs)
            found = survey(traced, current, exact=asked.exact, units=asked.units)
            for group in found.groups if step == 1 else ():
                whole[group.producers] = group.width
            asked = _in_numbers(asked, traced, found, current)
            goal = _goal(asked, traced, found, current, step)
            done = _step(goal, traced, found, current, whole, check)
        changes = _joined(changes, done.changes)
        notes.update(dict.fromkeys(done.notes))
        current = done.model if recover is None else _recovered(asked, done.model, step)
        progress("cutting", step, asked.steps)
    return Compressed(current, tuple(changes), tuple(notes))


Check = Callable[[], object]
"""Raises where it is the network itself that does not run on its example."""


def _traced(
    asked: Asked, model: nn.Module, example_inputs: tuple[Tensor, ...]
) -> tuple[Traced, Check | None]:
    """The graph. The whole network is only run on its example where nothing else would tell that it cannot: the graph
    is run with its units masked, so what that does not see is in units that leave, whose weights are read for their
    scores; only numbers in buffers are left."""
    read = asked.importance in ("l1", "l2") and asked.measure is None
    if not read or not all(map(_is_finite, named_tensors(model)[1].values())):
        return trace(model, example_inputs), None
    return trace(model, example_inputs, run=False), partial(check_runs, model, example_inputs)


def _is_finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(torch.isfinite(x).all())


def _recovered(asked: Asked, model: nn.Module, step: int) -> nn.Module:
    assert asked.recover is not None
    due = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    trained = asked.recover(model, step)
    if not isinstance(trained, nn.Module):
        raise InputError(asked.call, f"recover returned a {type(trained).__name__}", "Return the network")
    if {name: tuple(tensor.shape) for name, tensor in trained.state_dict().items()} != due:
        raise InputError(
            asked.call,
            f"recover returned a network of other shapes than it was given at step {step}",
            "Train the network that is given, and return it",
        )
    return trained


def _in_numbers(asked: Asked, traced: Traced, found: Survey, model: nn.Module) -> Asked:
    """The same with a limit that is a share of what the network costs now turned into a number."""
    if asked.limit is None or asked.measure is not None or asked.limit[1] >= 1:
        return asked
    cost, share = asked.limit
    return replace(asked, limit=(cost, share * _now(asked, traced, found, model)))


def _now(asked: Asked, traced: Traced, found: Survey, model: nn.Module) -> float:
    assert asked.limit is not None
    if asked.measure is not None:
        return measured(asked.call, asked.measure, copy_model(model))
    return costing(traced, found, model, asked.limit[0])(removed_labels(found, {}))  # type: ignore[arg-type]


def _goal(asked: Asked, traced: Traced, found: Survey, model: nn.Module, step: int) -> Asked:
    """What there has to be left after this step: the same factor each, so that the last ends at the goal."""
    if asked.ratio is not None:
        return replace(asked, ratio=1 - (1 - asked.ratio) ** (step / asked.steps))
    if step == asked.steps or asked.limit is None:
        return asked
    cost, most = asked.limit
    now = _now(asked, traced, found, model)
    return replace(asked, limit=(cost, now * min(most / now, 1.0) ** (1 / (asked.steps - step + 1))))


def _evidence(asked: Asked, traced: Traced, found: Survey, model: nn.Module) -> Evidence:
    if asked.importance in OF_THE_LOSS:
        return gradients(asked.call, model, asked.losses)
    if asked.importance in OF_ACTIVATIONS:
        return activities(asked.call, traced, found, model, asked.calibration)
    return Evidence()


def _step(
    asked: Asked,
    traced: Traced,
    found: Survey,
    model: nn.Module,
    whole: Mapping[tuple[str, ...], int],
    check: Check | None,
) -> Compressed:
    """One cut to the goal of ``asked``; under a limit it is chosen again without the groups that had to be given
    back, as long as there are any."""
    evidence = _evidence(asked, traced, found, model)
    fenced = [note(layer, fence, model) for layer, fence in found.left.items()]
    back: list[Note] = []
    while True:
        stuck = [each.layer for each in back if each.layer is not None]
        try:
            blocks, notes = blocks_of_all(asked, traced, found, model, evidence, stuck)
        except ModelError:  # a score that is no number
            if check is not None:
                check()
            raise
        if not blocks:
            if check is not None:
                check()
            reasons = (
                "; ".join(each.text for each in (*fenced, *back, *notes)) or "it has no layer with neurons"
            )
            raise ModelError(
                asked.call, f"nothing can leave ({reasons})", "Quantize it, or prune single weights"
            )
        if check is not None and not asked.compare:
            scored = {part.tensor for own in blocks for part in found.groups[own.group].slices}
            if not all(_is_finite(x) for name, x in named_tensors(model)[0].items() if name not in scored):
                check()
        cuts = chosen(asked, traced, found, model, blocks, whole, back)
        if asked.limit is not None and not cuts:
            text = f"nothing has to leave: the budget of {asked.limit[1]:.6g} {asked.limit[0]} is met already"
            notes.append(Note("TP307", "note", None, text))
        for number in cuts:
            group = found.groups[number]
            if group.norms:
                text = f"{', '.join(group.producers)}: {group.norms[0]} now runs over fewer units, so the others differ"
                notes.append(Note("TP304", "note", group.producers[0], text))
        made = [Cut(found.groups[n], gone) for n, gone in cuts.items()]
        outcome = operate(model, made, traced, found, check, compare=asked.compare)
        again = [each for each in outcome.notes if each.code == "TP302"]
        if asked.limit is None or not again:
            return Compressed(outcome.model, outcome.changes, (*fenced, *notes, *back, *outcome.notes))
        back += again


def _joined(before: Sequence[Change], now: Sequence[Change]) -> list[Change]:
    """Changes of several steps as one: what was before the first, what is after the last."""
    joined = {(each.layer, each.what): each for each in before}
    for each in now:
        old = joined.get((each.layer, each.what))
        joined[each.layer, each.what] = each if old is None else replace(each, was=old.was)
    return list(joined.values())
