"""Widths that a user's own module keeps as numbers: heads, inner sizes, where to split.

torch's layers say which numbers those are. Any other module says it by what runs in it: a number that equals the
size of a dimension before the cut, in a module that computes with that dimension, is set to the size after it. Where
sizes coincide, the forward pass decides: what runs and computes what it must is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tinypress.graph import Traced
from tinypress.layers import set_width
from tinypress.shrink.groups import Survey

Sizes = Mapping[str, Mapping[int, frozenset[int]]]


@dataclass(frozen=True)
class _Number:
    """One attribute that may be a width, and what it would become; not ``sure`` where its size stays elsewhere."""

    layer: nn.Module
    name: str
    new: int
    sure: bool

    @property
    def key(self) -> tuple[type[nn.Module], str]:
        return type(self.layer), self.name


def sizes_by_module(traced: Traced, found: Survey, gone: NDArray[np.bool_]) -> Sizes:
    """For each module that runs operations: sizes of the dimensions in them before the cut, each with those after."""
    sizes: dict[str, dict[int, set[int]]] = {}
    for node in traced:
        if node.kind != "call":
            continue
        own = sizes.setdefault(node.module, {})
        for name in (node.name, *node.inputs):
            for dims in (found.labels.get(name, ()), *found.parts.get(name, ())):
                for labels in dims:
                    own.setdefault(len(labels), set()).add(len(labels) - int(gone[labels].sum()))
    return {path: {old: frozenset(new) for old, new in own.items()} for path, own in sizes.items()}


def adapt(model: nn.Module, sizes: Sizes, failure: Callable[[nn.Module], str | None]) -> str | None:
    """Set the numbers in ``model``, in place, that make ``failure`` return None; what it says, where none do."""
    numbers = list(_numbers(model, sizes))
    first: str | None = None
    for chosen in _trials(numbers):
        before = [(number, getattr(number.layer, number.name)) for number in chosen]
        for number in chosen:
            setattr(number.layer, number.name, number.new)
        said = failure(model)
        for number, old in before:
            setattr(number.layer, number.name, old)
        if said is None:
            for number in chosen:
                set_width(number.layer, number.name, number.new)
            return None
        first = first or said
    return first


def _numbers(model: nn.Module, sizes: Sizes) -> Iterator[_Number]:
    for path, layer in model.named_modules():
        if type(layer).__module__.startswith("torch."):
            continue
        known = sizes.get(path, {})
        for name, value in vars(layer).items():
            if type(value) is not int or name.startswith("_") or value not in known:
                continue
            changed = known[value] - {value}
            if len(changed) == 1:
                yield _Number(layer, name, next(iter(changed)), sure=value not in known[value])


def _trials(numbers: list[_Number]) -> Iterator[list[_Number]]:
    """Which numbers to set: the sure ones, all, none; then without or with one kind of the others."""
    sure = [number for number in numbers if number.sure]
    doubtful = list(dict.fromkeys(number.key for number in numbers if not number.sure))
    yield sure
    if doubtful:
        yield numbers
    if sure:
        yield []
    if len(doubtful) > 1:
        for key in doubtful[:16]:
            yield [number for number in numbers if number.sure or number.key != key]
        for key in doubtful[:16]:
            yield [number for number in numbers if number.sure or number.key == key]
    for key in dict.fromkeys(number.key for number in sure):
        yield [number for number in numbers if number.key != key]
