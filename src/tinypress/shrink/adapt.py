"""Widths that a user's own module keeps as numbers: heads, inner sizes, where to split.

torch's layers say which numbers those are. Any other module says it by what runs in it: a number that equals the
size of a dimension before the cut, in a module that computes with that dimension, is set to the size after it. Where
sizes coincide, the forward pass decides: what runs and computes what it must is right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from tinypress.graph import Traced
from tinypress.layers import attributes_of, has_widths, set_width
from tinypress.shrink.flow import Labels
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


def sizes_by_module(traced: Traced, found: Survey, left: Callable[[Labels], int]) -> Sizes:
    """For each module that runs operations: the sizes in them; ``left`` is from ``widths_left``."""
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
                    width = (len(labels), left(labels))
                    role = (word, dim - len(dims))
                    while own.get(role, width) != width:
                        role = (f"{role[0]}'", role[1])
                    own[role] = width
    return sizes


def adapt(
    model: nn.Module, sizes: Sizes, off: Callable[[nn.Module], float | str], equal: float, most: float
) -> str | None:
    """Set the numbers in ``model``, in place, with which it is nearest to what it must compute.

    Args:
        off: how far from that it is, or what goes wrong when it runs.
        equal: a distance at which no other numbers are tried.
        most: the largest distance that is taken as rounding.

    Returns:
        What is wrong, where no numbers bring it within ``most``; then they are as they were.
    """
    numbers = list(_numbers(model, sizes))
    best: _Choice | None = None
    nearest, first = float("inf"), ""
    for choice in _choices(numbers):
        for number in numbers:
            setattr(number.layer, number.name, _then(number, choice))
        now = off(model)
        if isinstance(now, str):
            first = first or now
        elif now < nearest:
            best, nearest = choice, now
            if now <= equal:
                break
    found = best is not None and nearest <= most
    for number in numbers:
        then = _then(number, best) if found and best is not None else number.now
        setattr(number.layer, number.name, number.now)
        if then != number.now:
            set_width(number.layer, number.name, then)
    return None if found else (first or said(nearest))


def said(off: float) -> str:
    """A distance as error texts tell it."""
    return f"its output is off by {off:.3g} of its largest value"


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
            if has_widths(layer) and name in attributes_of(layer):  # its tensors say these
                continue
            then = {role: after for role, (before, after) in known.items() if before == value}
            if any(after != value for after in then.values()):
                yield _Number(layer, name, value, then)


def _choices(numbers: list[_Number]) -> Iterator[_Choice]:
    """Which role each kind of number plays, or None where it is no width: at first none, then all the likeliest, then
    with one of them another, then some of all combinations."""
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
    yield dict.fromkeys(options)  # a number that is no width keeps its value
    if not options:
        return
    yield best
    for kind, each in options.items():
        for other in each[1:]:
            yield {**best, kind: other}
    for roles in itertools.islice(itertools.product(*options.values()), _MOST):
        yield dict(zip(options, roles, strict=True))


_MOST = 64
