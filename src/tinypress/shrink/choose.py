"""Which units leave: blocks of them in the order of their importance, up to a share or a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinypress.shrink.groups import Group

Cuts = dict[int, tuple[int, ...]]
"""The units that leave, by number of their group."""


@dataclass(frozen=True)
class Block:
    """Units of one group that leave together, and how much they matter for what they cost."""

    group: int
    units: tuple[int, ...]
    score: float


@dataclass(frozen=True, eq=False)
class Blocks(Sequence[Block]):
    """What can leave one group, block by block. ``order`` holds its units, block ``i`` those up to ``ends[i]``."""

    group: int
    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> Block: ...
    @overload
    def __getitem__(self, place: slice) -> list[Block]: ...
    def __getitem__(self, place: int | slice) -> Block | list[Block]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        end = self.ends[place]  # also says where there is none
        start = self.ends[place % len(self) - 1] if place % len(self) else 0
        return Block(self.group, tuple(self.order[start:end].tolist()), float(self.scores[place]))


def blocks_of(
    number: int, group: Group, scores: Tensor, *, multiple: int, min_width: int, price: float
) -> Blocks:
    """What can leave a group, the least important first; each block leaves a width that ``multiple`` divides.

    A block scores the mean of its units divided by ``price``, and never less than the block before it, which has to
    leave first. At least ``min_width`` units stay, and one in every tensor.
    """
    order = _removable(group, scores, group.width - max(min_width, 1))
    ends = np.arange(group.width % multiple or multiple, len(order) + 1, multiple)
    order = order[: ends[-1]] if len(ends) else order[:0]
    values = scores.numpy()[order]
    if multiple > 1:
        each = np.split(values, ends[:-1])
        values = np.array([math.fsum(part.tolist()) / len(part) for part in each if len(part)])
    return Blocks(number, order, ends, np.maximum.accumulate(values / price) if len(ends) else values)


def _removable(group: Group, scores: Tensor, most: int) -> NDArray[np.int64]:
    """Units in rising order of importance, the earlier first among equals; one that is the last of a tensor stays."""
    ranked = torch.argsort(scores, stable=True).numpy()
    # where every unit has a place the last but one may leave, which `most` sees to
    partial = [part.counts > 0 for part in group.slices if not (part.each_has_one or part.counts.all())]
    if not partial:
        return ranked[: max(most, 0)]
    left = [int(part.sum()) for part in partial]
    order: list[int] = []
    for unit in ranked.tolist():
        if len(order) >= most:
            break
        used = [i for i, part in enumerate(partial) if part[unit]]
        if all(left[i] > 1 for i in used):
            order.append(unit)
            for i in used:
                left[i] -= 1
    return np.array(order, dtype=np.int64)


def by_share(blocks: Sequence[Blocks], dues: Sequence[int]) -> Cuts:
    """Of each group as many blocks as come nearest to the units that are due to leave it."""
    cuts: Cuts = {}
    for own, due in zip(blocks, dues, strict=True):
        off = np.abs(np.concatenate([[0], own.ends]) - due)
        farther = np.flatnonzero(off[1:] >= off[:-1])
        count = farther[0] if len(farther) else len(own)
        if count:
            cuts[own.group] = tuple(np.sort(own.order[: own.ends[count - 1]]).tolist())
    return cuts


def ranked(blocks: Sequence[Sequence[Block]]) -> list[Block]:
    """All blocks in the order in which they leave."""
    everything = [
        (block.score, block.group, place, block) for own in blocks for place, block in enumerate(own)
    ]
    return [block for *_, block in sorted(everything, key=lambda each: each[:3])]


def by_rank(blocks: Sequence[Sequence[Block]], due: int) -> Cuts:
    """The least important blocks of all groups together, as many as come nearest to ``due`` units."""
    chosen: list[Block] = []
    count = 0
    for block in ranked(blocks):
        if abs(count + len(block.units) - due) >= abs(count - due):
            break
        chosen.append(block)
        count += len(block.units)
    return cuts_of(chosen)


def by_budget(
    blocks: Sequence[Sequence[Block]], cost: Callable[[Cuts], float], most: float, *, give_back: bool = True
) -> Cuts | None:
    """As few of the ranked blocks as bring ``cost`` to at most ``most``; None where all of them do not.

    With ``give_back`` what was removed and still fits is put back, the most important first, so that the cost ends
    within one smallest step of ``most``. It asks for the cost once for each group at least.
    """
    order = ranked(blocks)
    if cost(cuts_of(order)) > most:
        return None
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if cost(cuts_of(order[:middle])) <= most:
            high = middle
        else:
            low = middle + 1
    chosen = order[:low]
    if not give_back:
        return cuts_of(chosen)
    closed: set[int] = set()
    for block in reversed(list(chosen)):
        if block.group in closed:
            continue
        without = [each for each in chosen if each is not block]
        if cost(cuts_of(without)) <= most:
            chosen = without
        else:
            closed.add(block.group)
    return cuts_of(chosen)


def cuts_of(blocks: Sequence[Block]) -> Cuts:
    """The units of all these blocks by group."""
    cuts: dict[int, list[int]] = {}
    for block in blocks:
        cuts.setdefault(block.group, []).extend(block.units)
    return {group: tuple(sorted(units)) for group, units in cuts.items()}
