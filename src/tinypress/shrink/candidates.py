"""Which units of every group can leave, and which of them do: by share, by rank, or down to a budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.facts import Note
from tinypress.graph import Traced
from tinypress.layers import named_tensors
from tinypress.shrink.asked import Asked
from tinypress.shrink.budget import measured
from tinypress.shrink.choose import Blocks, Cuts, blocks_of, by_budget, by_rank, by_share, cuts_of
from tinypress.shrink.costs import Costing, costing
from tinypress.shrink.cutting import Cut, cut_out
from tinypress.shrink.groups import Survey
from tinypress.shrink.keep import held_by
from tinypress.shrink.reference import removed_labels
from tinypress.shrink.saliency import OF_THE_LOSS, Evidence, score_units
from tinypress.shrink.timed import latency_of


def blocks_of_all(
    asked: Asked, traced: Traced, found: Survey, model: nn.Module, evidence: Evidence, stuck: Sequence[str]
) -> tuple[list[Blocks], list[Note]]:
    """What can leave each group but those of the layers that are ``stuck``, and a note for each that keeps all."""
    notes: list[Note] = []
    blocks: list[Blocks] = []
    parameters, buffers = named_tensors(model)
    tensors = {**parameters, **buffers}
    cost = _cost(asked, traced, found, model)
    for number, group in enumerate(found.groups):
        if group.producers[0] in stuck:
            continue
        held = held_by(group.producers, asked.keep)
        if held is not None:
            text = f"{', '.join(group.producers)}: all units are kept as asked (keep={held!r})"
            notes.append(Note("TP303", "note", group.producers[0], text))
            continue
        own = _blocks(asked, found, tensors, evidence, number, cost)
        if own:
            blocks.append(own)
        else:
            text = f"{group.producers[0]} keeps its {group.width} units: fewer than one step can leave"
            notes.append(Note("TP303", "note", group.producers[0], text))
    return blocks, notes


def _cost(asked: Asked, traced: Traced, found: Survey, model: nn.Module) -> Costing | None:
    """What units are ranked by the cost of."""
    if asked.per is None:
        return None
    if asked.per == "latency_ms":
        assert asked.table is not None
        return latency_of(traced, found, model, asked.table)
    return costing(traced, found, model, asked.per)


def _blocks(
    asked: Asked,
    found: Survey,
    tensors: Mapping[str, Tensor],
    evidence: Evidence,
    number: int,
    cost: Costing | None,
) -> Blocks:
    group = found.groups[number]
    scores = score_units(tensors, group, number, asked.importance, evidence, asked.seed)
    if asked.importance not in OF_THE_LOSS and float(scores.mean()) > 0:
        scores = scores / scores.mean()
    price = 1.0
    if cost is not None:
        # time falls in steps: on average over half of the units
        count = max(group.width // 2, 1) if asked.per == "latency_ms" else 1
        nothing, without = (cost(removed_labels(found, cut)) for cut in ({}, {number: range(count)}))
        least = nothing * 1e-6 if asked.per == "latency_ms" else 1
        price = max((nothing - without) / count, least) / max(nothing, least)
    return blocks_of(number, group, scores, multiple=asked.multiple, min_width=asked.min_width, price=price)


def chosen(
    asked: Asked,
    traced: Traced,
    found: Survey,
    model: nn.Module,
    blocks: Sequence[Blocks],
    whole: Mapping[tuple[str, ...], int],
    back: Sequence[Note],
) -> Cuts:
    if asked.ratio is not None:
        groups = [found.groups[own.group] for own in blocks]
        full = [whole.get(group.producers, group.width) for group in groups]
        left = [group.width for group in groups]
        if asked.together:
            return by_rank(blocks, round(asked.ratio * sum(full)) - (sum(full) - sum(left)))
        pairs = zip(full, left, strict=True)
        return by_share(blocks, [round(asked.ratio * width) - (width - now) for width, now in pairs])
    assert asked.limit is not None
    cost, most = asked.limit
    if asked.measure is not None:
        measure = asked.measure
        count = itertools.count(1)
        tries = 2 + sum(map(len, blocks)).bit_length()  # as it is, with all gone, and by halves

        def of(cuts: Cuts) -> float:
            tried = cut_out(model, [Cut(found.groups[n], gone) for n, gone in cuts.items()])
            cost = measured(asked.call, measure, tried)
            number = next(count)
            asked.progress("measuring smaller networks", number, max(number, tries))
            return cost
    else:
        counted = costing(traced, found, model, cost)  # type: ignore[arg-type]

        def of(cuts: Cuts) -> float:
            return counted(removed_labels(found, cuts))

    if of({}) <= most:
        return {}
    cuts = by_budget(blocks, of, most, give_back=asked.measure is None)
    if cuts is None:
        least = of(cuts_of([block for own in blocks for block in own]))
        stuck = "".join(f"; {each.text}" for each in back)
        raise ModelError(
            asked.call,
            f"{cost} cannot fall to {most:.6g}: with every unit gone that may leave it is {least:.6g}{stuck}",
            "Allow more, keep fewer layers, or lower multiple and min_width",
        )
    return cuts
