"""Calibration samples are judged before anything is learnt from them: wrong ones give wrong ranges, and no error.

One function a judgement, which returns a text or nothing. What is unusual is a note; nothing is ranged on samples that
are all the same. The samples are compared with data that the network was trained on where there is any, else with what
its first batch norm remembers of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinypress.errors import DataError
from tinypress.facts import Compressed, Note, Severity
from tinypress.graph import forward_eval
from tinypress.quantize.likeness import (
    far_from,
    known_tokens,
    looks_drawn,
    neighbours_agree,
    statistics,
    statistics_of_rows,
)
from tinypress.task import Split

FEW = 32
_LEAST, _MOST, _NUMBERS = 32, 512, 4_000_000  # samples of a split that are looked at, spread evenly over it
_SHIFT, _STRETCH = 0.5, 1.5  # of training's standard deviation
_SHIFT_OF_NORM, _STRETCH_OF_NORM = 1.0, 1.8  # what a batch norm remembers is further from the data
_NEIGHBOURS, _NONE = 0.3, 0.1
_TOKENS = 0.5


@dataclass(frozen=True)
class _Seen:
    network: Compressed
    samples: Split
    reference: Split | None


def judge_calibration(
    call: str, network: Compressed, samples: Split, reference: Split | None = None
) -> tuple[Note, ...]:
    """What is wrong with ``samples`` as examples of what ``network`` will see.

    Args:
        call: what error texts repeat.
        reference: data that the network was trained on.

    Returns:
        a note for each: too few (TP220), of one class (TP221), many alike or empty (TP222), not scaled as in training
        (TP223), noise rather than data (TP224).

    Raises:
        DataError: all samples are the same, or are shaped otherwise than ``reference``.
    """
    _check_usable(call, samples, reference)
    seen = _Seen(network, _some(samples), None if reference is None else _some(reference))
    found = [(code, severity, judge(seen)) for code, severity, judge in _JUDGEMENTS]
    few = _too_few(len(samples))
    notes = [] if few is None else [Note("TP220", "warning", None, few)]
    return (*notes, *(Note(code, severity, None, text) for code, severity, text in found if text))


def _check_usable(call: str, samples: Split, reference: Split | None) -> None:
    same = [len(samples) > 1 and bool((x == x[:1]).all()) for x in samples.inputs]
    if all(same):
        raise DataError(
            call,
            f"all {len(samples)} calibration samples have the same input {same.index(True) + 1}",
            "Calibrate on different samples of real data",
        )
    if reference is None:
        return
    shapes, expected = ([tuple(x.shape[1:]) for x in split.inputs] for split in (samples, reference))
    if shapes != expected:
        raise DataError(
            call,
            f"the calibration samples have shapes {shapes}, the reference {expected}",
            "Give both as the network takes them",
        )


def _some(split: Split) -> Split:
    each = sum(x[0].numel() for x in split.inputs)
    count = min(_MOST, max(_LEAST, _NUMBERS // max(1, each)))
    return split if len(split) <= count else split.take(torch.linspace(0, len(split) - 1, count).long())


def _too_few(count: int) -> str | None:
    if count >= FEW:
        return None
    return (
        f"{count} calibration samples are few: the range of a value is what these happen to reach. Give "
        f"{FEW} or more, best some hundred"
    )


def _one_class(seen: _Seen) -> str | None:
    given = _labels(seen.samples)
    if given is None or len(given) < 2:
        return None
    classes = len(set(given))
    known = None if seen.reference is None else _labels(seen.reference)
    if known is None:
        if classes > 1 or seen.reference is not None:
            return None
        return f"all calibration samples have the target {given[0]}: if that is a class, give all classes"
    # classes that as many random samples would have
    expected = sum(1 - (1 - count / len(known)) ** len(given) for count in Counter(known).values())
    if classes >= expected / 3:
        return None
    return (
        f"{len(given)} calibration samples are of {classes} class{'es' * (classes > 1)}, where as many random ones of "
        f"the training data have about {expected:.0f}: what the other classes reach is not in the ranges"
    )


def _labels(split: Split) -> list[int] | None:
    targets = split.targets
    if targets.dim() != 1 or targets.is_floating_point():
        return None
    return [int(target) for target in targets.tolist()]


def _alike(seen: _Seen) -> str | None:
    for place, x in enumerate(seen.samples.inputs, start=1):
        if not x.is_floating_point() or x[0].numel() < 16:
            continue
        rows = x.flatten(1)
        empty = int((rows.amax(1) == rows.amin(1)).sum())
        if empty > len(x) / 2:
            return f"{empty} of {len(x)} calibration samples hold one number all over in input {place}"
        different = len({row.numpy().tobytes() for row in rows.cpu().contiguous()})
        if len(x) > 1 and different <= len(x) / 2:
            return (
                f"only {different} of {len(x)} calibration samples differ from one another in input {place}"
            )
    return None


def _otherwise_scaled(seen: _Seen) -> str | None:
    if seen.reference is None:
        return _unlike_batch_norm(seen)
    for place, (x, known) in enumerate(zip(seen.samples.inputs, seen.reference.inputs, strict=True), start=1):
        if not x.is_floating_point():
            continue
        given = statistics(x, seen.samples.groups)
        usual = statistics(known, seen.reference.groups)
        if far_from(given, usual, _SHIFT, _STRETCH):
            return (
                f"input {place} of the calibration samples has mean {given.of_all[0]:.3g} and standard deviation "
                f"{given.of_all[1]:.3g}, that of the training data {usual.of_all[0]:.3g} and {usual.of_all[1]:.3g}: "
                "normalise them as in training"
            )
    return None


def _unlike_batch_norm(seen: _Seen) -> str | None:
    """Without training data: does the first batch norm meet what it met in training?"""
    if seen.network.pruned:  # it then meets what the pruned weights make, whatever the data are
        return None
    found = _first_batch_norm(seen.network.model, seen.samples)
    if found is None:
        return None
    name, norm, given = found
    if norm.running_mean is None or norm.running_var is None:
        return None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    untrained = bool((mean == 0).all()) and bool((variance == 1).all())
    usual = statistics_of_rows(mean, torch.sqrt(variance + norm.eps))
    if untrained or not far_from(
        statistics(given, seen.samples.groups), usual, _SHIFT_OF_NORM, _STRETCH_OF_NORM
    ):
        return None
    return (
        f"the batch norm {name!r} meets other values on the calibration samples than it remembers of the training: "
        "normalise them as in training"
    )


class _Met(Exception):
    """Ends a forward pass."""


def _first_batch_norm(model: nn.Module, samples: Split) -> tuple[str, _BatchNorm, Tensor] | None:
    """The batch norm that is called first, and its inputs on the samples."""
    norms = {norm: name for name, norm in model.named_modules() if isinstance(norm, _BatchNorm)}
    met: list[tuple[_BatchNorm, Tensor]] = []

    def stop(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        met.append((norm, given[0].detach()))
        raise _Met

    hooks = [norm.register_forward_pre_hook(stop) for norm in norms]
    try:
        if norms:
            forward_eval(model, samples.inputs)
    except _Met:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return (norms[met[0][0]], *met[0]) if met else None


def _noise(seen: _Seen) -> str | None:
    known = [None] * len(seen.samples.inputs) if seen.reference is None else seen.reference.inputs
    for place, (x, usual) in enumerate(zip(seen.samples.inputs, known, strict=True), start=1):
        if not x.is_floating_point():
            if usual is not None and known_tokens(x, usual) < _TOKENS:
                return f"most numbers in input {place} of the calibration samples do not occur in the training data"
            continue
        here = neighbours_agree(x)
        if here is None:
            continue
        there = None if usual is None else neighbours_agree(usual)
        if there is not None:
            if there > _NEIGHBOURS and here < _NONE:
                return (
                    f"neighbours in input {place} of the calibration samples have a correlation of {here:.2f}, in the "
                    f"training data {there:.2f}: these look like noise, not like data"
                )
        elif usual is None and abs(here) < _NONE and looks_drawn(x):
            return f"input {place} of the calibration samples looks like random numbers, not like data"
    return None


_JUDGEMENTS: tuple[tuple[str, Severity, Callable[[_Seen], str | None]], ...] = (
    ("TP221", "warning", _one_class),
    ("TP222", "warning", _alike),
    ("TP223", "warning", _otherwise_scaled),
    ("TP224", "warning", _noise),
)
