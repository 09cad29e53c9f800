"""Widths that a user's own module keeps as numbers: heads, inner sizes, where to split.

torch's layers say which numbers those are. Any other module says it by what runs in it: a number that equals the
size of a dimension before the cut, in a module that computes with that dimension, is set to the size after it. Where
sizes coincide, the forward pass decides: what runs and computes what it must is right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tinypress.graph import Traced
from tinypress.layers import set_width
from tinypress.shrink.groups import Survey

Role = tuple[str, int]
"""Where a size stands: an operation or an own tensor by name, and the dimension counted from the last."""

Sizes = Mapping[str, Mapping[Role, tuple[int, int]]]
"""By path of a module and role: the size before the cut and after it."""

_Kind = tuple[type[nn.Module], str]
_Choice = dict[_Kind, Role | None]


@dataclass(frozen=True)
class _Number:
    """One attribute that may be a width, and what it would become by each role that its size stands in."""

    layer: nn.Module
    name: str
    now: int
    then: Mapping[Role, int]


def sizes_by_module(traced: Traced, found: Survey, gone: NDArray[np.bool_]) -> Sizes:
    """For each module that runs operations: the sizes in them."""
    sizes: dict[str, dict[Role, tuple[int, int]]] = {}
    nodes = traced.by_name()
    for node in traced:
        if node.kind != "call":
            continue
        own = sizes.setdefault(node.module, {})
        for name in (node.name, *node.inputs):
            source = nodes[name]
            word = (source.tensor or "").rpartition(".")[2] or source.label
            for dims in (found.labels.get(name, ()), *found.parts.get(name, ())):
                for dim, labels in enumerate(dims):
                    after = len(labels) - int(gone[labels].sum())
                    role = (word, dim - len(dims))
                    while own.get(role, (len(labels), after)) != (len(labels), after):
                        role = (f"{role[0]}'", role[1])
                    own[role] = (len(labels), after)
    return sizes


def adapt(model: nn.Module, sizes: Sizes, failure: Callable[[nn.Module], str | None]) -> str | None:
    """Set the numbers in ``model``, in place, that make ``failure`` return None; what it says, where none do."""
    numbers = list(_numbers(model, sizes))
    first: str | None = None
    for choice in _choices(numbers):
        for number in numbers:
            setattr(number.layer, number.name, _then(number, choice))
        said = failure(model)
        if said is None:
            for number in numbers:
                if _then(number, choice) != number.now:
                    set_width(number.layer, number.name, _then(number, choice))
            return None
        first = first or said
    for number in numbers:
        setattr(number.layer, number.name, number.now)
    return first


def _then(number: _Number, choice: _Choice) -> int:
    role = choice.get((type(number.layer), number.name))
    return number.now if role is None else number.then.get(role, number.now)


def _numbers(model: nn.Module, sizes: Sizes) -> Iterator[_Number]:
    for path, layer in model.named_modules():
        if type(layer).__module__.startswith("torch."):
            continue
        known = sizes.get(path, {})
        for name, value in list(vars(layer).items()):
            if type(value) is not int or name.startswith("_"):
                continue
            then = {role: after for role, (before, after) in known.items() if before == value}
            if any(after != value for after in then.values()):
                yield _Number(layer, name, value, then)


def _choices(numbers: list[_Number]) -> Iterator[_Choice]:
    """Which role each kind of number plays, or None where it is no width: at first all the likeliest, then with one
    of them another, then none, then some of all combinations."""
    options: dict[_Kind, list[Role | None]] = {}
    for kind in dict.fromkeys((type(number.layer), number.name) for number in numbers):
        of_kind = [number for number in numbers if (type(number.layer), number.name) == kind]
        distinct: dict[tuple[int, ...], Role | None] = {}
        for role in dict.fromkeys(role for number in of_kind for role in number.then):
            distinct.setdefault(tuple(number.then.get(role, number.now) for number in of_kind), role)
        unchanged = tuple(number.now for number in of_kind)
        changing: list[Role | None] = [role for after, role in distinct.items() if after != unchanged]
        options[kind] = [*changing, None]
    best: _Choice = {kind: each[0] for kind, each in options.items()}
    yield best
    for kind, each in options.items():
        for other in each[1:]:
            yield {**best, kind: other}
    yield dict.fromkeys(options)
    for roles in itertools.islice(itertools.product(*options.values()), _MOST):
        yield dict(zip(options, roles, strict=True))


_MOST = 64
