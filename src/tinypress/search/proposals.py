"""The next smaller networks: the least cut of each group of neurons that reaches a cost, and each layer out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from torch import Tensor, nn

from tinypress.facts import Change
from tinypress.graph import Traced, trace
from tinypress.layers import stock_path
from tinypress.search.goal import Goal
from tinypress.shrink.branches import Branch, residual_branches
from tinypress.shrink.choose import Block, blocks_of, cuts_of
from tinypress.shrink.cutting import Cut
from tinypress.shrink.groups import Survey, survey
from tinypress.shrink.keep import held_by
from tinypress.shrink.leave import leavers, paths_of, taken_out
from tinypress.shrink.reference import removed_labels
from tinypress.shrink.residual import Residual, residual_layers
from tinypress.shrink.saliency import Evidence, Saliency, score_units
from tinypress.shrink.surgery import operate

_TRIED_WIDTHS = 32


@dataclass(frozen=True)
class Choices:
    """What may be cut, and how: as in ``prune_structured``; ``depth`` lets layers leave whole."""

    keep: tuple[str, ...] = ()
    importance: Saliency = "l2"
    multiple: int = 1
    min_width: int = 1
    depth: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Proposal:
    """A smaller network: what was cut, in words and as facts by the stock network's names, and its cost."""

    what: str
    model: nn.Module
    changes: tuple[Change, ...]
    cost: float


def proposals(
    model: nn.Module, example_inputs: tuple[Tensor, ...], goal: Goal, target: float, choices: Choices
) -> Iterator[Proposal]:
    """One network for each group of neurons and each layer of ``model``, of a cost of at most ``target``.

    What cannot come down to ``target`` by itself is cut as far as it goes, and comes after all that can.
    """
    traced = trace(model, example_inputs)
    found = survey(traced, model, exact=False)
    now = goal.costing(traced, found, model)(removed_labels(found, {}))
    short: list[Proposal] = []
    cut = chain(
        _narrower(model, traced, found, goal, target, choices),
        _shallower(model, example_inputs, traced, goal, choices),
    )
    for proposal in cut:
        if proposal.cost <= target:
            yield proposal
        elif proposal.cost < now:
            short.append(proposal)
    yield from sorted(short, key=lambda each: each.cost)


def _narrower(
    model: nn.Module, traced: Traced, found: Survey, goal: Goal, target: float, choices: Choices
) -> Iterator[Proposal]:
    costing = goal.costing(traced, found, model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for number, group in enumerate(found.groups):
        names = [stock_path(model, path) for path in group.producers]
        if held_by(names, choices.keep) is not None:
            continue
        scores = score_units(tensors, group, number, choices.importance, Evidence(), choices.seed)
        blocks = blocks_of(
            number, group, scores, multiple=choices.multiple, min_width=choices.min_width, price=1.0
        )
        count = _least(blocks, lambda some: costing(removed_labels(found, cuts_of(some))), target)
        if not count:
            continue
        units = cuts_of(blocks[:count])[number]
        outcome = operate(model, [Cut(group, units)], traced, found)
        if outcome.notes:  # without them its forward pass fails
            continue
        what = f"{', '.join(names)}: {group.width} to {group.width - len(units)}"
        changes = tuple(replace(each, layer=stock_path(model, each.layer)) for each in outcome.changes)
        yield Proposal(what, outcome.model, changes, costing(removed_labels(found, {number: units})))


def _least(blocks: Sequence[Block], cost: object, target: float) -> int:
    """How many of ``blocks`` have to leave for a cost of at most ``target``; all of them where that does not do.

    Latencies do not fall evenly: the first of some 32 counts that does is found, and then the gap before it halved.
    """
    assert callable(cost)
    if not blocks:
        return 0
    stride = max(len(blocks) // _TRIED_WIDTHS, 1)
    counts = [*range(stride, len(blocks), stride), len(blocks)]
    high = next((count for count in counts if cost(blocks[:count]) <= target), len(blocks))
    low = max(high - stride, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(blocks[:middle]) <= target else (middle, high)
    return high


def _shallower(
    model: nn.Module, example_inputs: tuple[Tensor, ...], traced: Traced, goal: Goal, choices: Choices
) -> Iterator[Proposal]:
    if not choices.depth:
        return
    layers: list[Residual | Branch] = [*residual_layers(model, example_inputs)]
    layers = layers or [*residual_branches(traced, model)]
    layers = [
        layer
        for layer in layers
        if held_by([stock_path(model, path) for path in paths_of(layer)], choices.keep) is None
    ]
    found, _ = leavers(model, layers, example_inputs)
    for leaver in found:
        made = taken_out(model, [leaver])
        names = [stock_path(model, path) for path in leaver.paths]
        changes = tuple(Change(name, "layers", 1, 0) for name in names)
        cost = goal.without(traced, model, made, leaver.paths)
        yield Proposal(f"without {names[0]}", made, changes, cost)
