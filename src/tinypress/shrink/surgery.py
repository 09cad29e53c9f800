"""Cut neurons out of a network, compare what is left, and give back those without which its forward pass fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.facts import Change, Note
from tinypress.graph import Traced
from tinypress.graph.record import Run, record_once
from tinypress.layers import (
    Size,
    attributes_of,
    copy_model,
    own_widths,
    owned_tensors,
    width_of,
)
from tinypress.shrink.adapt import Sizes, adapt, sizes_by_module
from tinypress.shrink.alike import other_operation
from tinypress.shrink.config import fit_configs, networks_of_configs
from tinypress.shrink.cutting import Cut, cut_out, thinner_tensors, with_tensors
from tinypress.shrink.distance import EQUAL, SAME, TOLERANCE, attempt, difference, farthest
from tinypress.shrink.flow import widths_left
from tinypress.shrink.groups import Survey
from tinypress.shrink.reference import masked_outputs, removed_labels


@dataclass(frozen=True)
class Outcome:
    """The cut network, what changed in it, and a note for each group that had to be given back."""

    model: nn.Module
    changes: tuple[Change, ...]
    notes: tuple[Note, ...] = field(default=())


def operate(
    model: nn.Module,
    cuts: Sequence[Cut],
    traced: Traced,
    found: Survey,
    check: Callable[[], object] | None = None,
    *,
    compare: bool = True,
) -> Outcome:
    """Make all ``cuts`` in a copy of ``model``, run it on its example, and compare what it returns with what the
    whole network returns when the removed neurons read as zero.

    If it does not run, or returns something else, because some code in it counts on a width, the cuts are made
    one by one and those that break it are left out, each with a note TP302.

    Args:
        check: raises where it is the whole network that does not run; asked once something is not right.
        compare: False runs what is left without values and compares operations and sizes alone, where the graph was
            recorded; a note TP308 says so.
    """
    compare = compare or not traced.recorded  # then nothing but values tells
    make = partial(_operated if compare else _like_the_whole, model, traced=traced, found=found)
    whole = make(cuts, check=check)
    said = () if compare else (_NOT_COMPARED,)
    if whole.failure is None:
        return _with_configs(model, whole, traced, said)
    if check is not None:
        check()
    kept: list[Cut] = []
    notes: list[Note] = []
    smaller: _Tried | None = None
    for cut in cuts:
        tried = make([*kept, cut])
        if tried.failure is None:
            kept.append(cut)
            smaller = tried
        else:
            layer = cut.group.producers[0]
            notes.append(
                Note(
                    "TP302",
                    "warning",
                    layer,
                    f"{layer} keeps its {cut.group.width} neurons: without {len(cut.units)} of them the forward "
                    f"pass fails ({tried.failure}); write no literal widths in forward(), or name them in keep",
                )
            )
    if smaller is None:
        return Outcome(copy_model(model), (), tuple(notes))
    return _with_configs(model, smaller, traced, (*said, *notes))


_NOT_COMPARED = Note(
    "TP308",
    "note",
    None,
    "as asked, what is left was run without values: it does the same operations on the sizes that are due, and what "
    "comes out was not compared with the whole network",
)


def _with_configs(model: nn.Module, tried: _Tried, traced: Traced, notes: tuple[Note, ...]) -> Outcome:
    """The outcome, once the configs of the networks in it say their widths where they can."""
    smaller = tried.model
    if not any(True for _ in networks_of_configs(smaller)):
        return Outcome(smaller, changes_between(model, smaller), notes)

    def is_right(other: nn.Module) -> bool:
        due = tried.outputs
        return due is not None and difference(_to_run(other, traced), traced.given, due, SAME) is None

    def recorded() -> Run | None:
        return tried.run or record_once(smaller, traced.given)

    more = fit_configs(model, smaller, tried.sizes, is_right, recorded)
    return Outcome(smaller, changes_between(model, smaller), (*notes, *more))


def _to_run(model: nn.Module, traced: Traced) -> nn.Module:
    """``model``, or a copy where running it would change it."""
    return copy_model(model) if traced.writes else model


def _gone(found: Survey, cuts: Sequence[Cut]) -> NDArray[np.bool_]:
    return removed_labels(found, {found.groups.index(cut.group): cut.units for cut in cuts})


@dataclass(frozen=True)
class _Tried:
    """A cut network, what it returns for the example or else what it does without values, the sizes before and after,
    and what is wrong with it."""

    model: nn.Module
    sizes: Sizes
    failure: str | None
    outputs: tuple[Tensor, ...] | None = None
    run: Run | None = None


def _operated(
    model: nn.Module,
    cuts: Sequence[Cut],
    traced: Traced,
    found: Survey,
    check: Callable[[], object] | None = None,
) -> _Tried:
    """A copy of ``model`` with the cuts made and its own numbers adapted."""
    gone = _gone(found, cuts)
    thinner = thinner_tensors(model, cuts)
    smaller = with_tensors(model, thinner)
    try:
        due = masked_outputs(traced, found, model, gone, thinner=thinner)
    except Exception:
        if check is not None:
            check()
        raise
    cases = [(traced.given, due), *_drawn(traced, found, model, gone)]
    nearest, outputs = float("inf"), due

    def off(tried: nn.Module) -> float | str:
        """The largest distance on the example and on what was drawn beside it."""
        nonlocal nearest, outputs
        most = 0.0
        returned: list[tuple[Tensor, ...]] = []
        for inputs, right in cases:
            now = attempt(_to_run(tried, traced), inputs, [tuple(x.shape) for x in right])
            if isinstance(now, str):
                return now
            returned.append(now)
            most = max(most, farthest(now, right))
        if most < nearest:
            nearest, outputs = most, returned[0]
        return most

    wide = all(x.dtype == torch.float64 for x in due if x.is_floating_point())
    sizes = sizes_by_module(traced, found, widths_left(gone))
    failure = adapt(smaller, sizes, off, EQUAL[wide], TOLERANCE[wide])
    return _Tried(smaller, sizes, failure, outputs=outputs)


def _like_the_whole(
    model: nn.Module,
    cuts: Sequence[Cut],
    traced: Traced,
    found: Survey,
    check: Callable[[], object] | None = None,
) -> _Tried:
    """As ``_operated``, but a network is right that does the operations of the whole one on the sizes that are due."""
    smaller = cut_out(model, cuts)
    left = widths_left(_gone(found, cuts))
    run: Run | None = None

    def off(tried: nn.Module) -> float | str:
        nonlocal run
        run = record_once(tried, traced.example, like=traced.nodes)
        if run is not None:
            return other_operation(run.nodes, traced, found, left) or 0.0
        outputs = attempt(tried, traced.given, None)
        return outputs if isinstance(outputs, str) else "it does other operations than the whole network"

    sizes = sizes_by_module(traced, found, left)
    failure = adapt(smaller, sizes, off, 0.0, 0.0)
    return _Tried(smaller, sizes, failure, run=run)


_Case = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


def _drawn(traced: Traced, found: Survey, model: nn.Module, gone: NDArray[np.bool_]) -> list[_Case]:
    """Random floats in place of the example's, where that is flat and may show no difference, with what is due.

    Nothing where no input is flat, or where the network is not made for such inputs.
    """
    if not any(_is_flat(x) for x in traced.given):
        return []
    generator = torch.Generator().manual_seed(0)

    def like(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        spread = float(x.double().std()) if x.numel() > 1 else 0.0
        random = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)
        return random * (spread if spread > 0 else 1.0) + x.mean()

    inputs = tuple(like(x) for x in traced.given)
    try:
        due = masked_outputs(traced, found, model, gone, inputs)
    except Exception:  # whatever an operation says to values out of its range
        return []
    finite = all(bool(torch.isfinite(x).all()) for x in due if x.is_floating_point())
    return [(inputs, due)] if finite else []


def _is_flat(x: Tensor) -> bool:
    """True for floats that are all the same along some dimension of a sample, or mostly zero."""
    if not x.is_floating_point() or x.dim() < 2:
        return x.is_floating_point()
    along = (dim for dim in range(1, x.dim()) if x.shape[dim] > 1)
    constant = [bool((x == x.narrow(dim, 0, 1)).all()) for dim in along]
    return not constant or any(constant) or 2 * int(torch.count_nonzero(x)) < x.numel()


def changes_between(before: nn.Module, after: nn.Module) -> tuple[Change, ...]:
    """Every width that differs: an attribute of a layer, or else the size of one of its tensors."""
    changes = []
    old_modules = dict(before.named_modules())
    for path, layer in after.named_modules():
        old = old_modules[path]
        was: dict[str, Size] = {k: v for k, v in attributes_of(old).items() if isinstance(v, int)}
        now = dict(attributes_of(layer))
        was |= {name: width_of(old, name) for name in own_widths(layer)}
        if not now or own_widths(layer):
            was, now = {**was, **_sizes(old)}, {**now, **_sizes(layer)}
        for name, value in was.items():
            new = now[name]
            if new != value and isinstance(new, int) and isinstance(value, int):
                changes.append(Change(path, name, value, new))
    return tuple(changes)


def _sizes(layer: nn.Module) -> dict[str, int]:
    return {
        f"{name}.shape[{dim}]": size
        for name, tensor in owned_tensors(layer).items()
        for dim, size in enumerate(tensor.shape)
    }
