"""How much a network's outputs change: what a layer that leaves is measured by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.graph import forward_eval, tensors_of

Distance = Literal["l2", "kl"]
"""``l2``: ||y' - y|| / ||y|| of each output, their mean. ``kl``: the mean of KL(softmax y || softmax y') over all that
stands before the last dimension of the first output, in nats."""

Effect = Callable[[nn.Module], float]
"""What leaving costs; 0 for the network as it is, or as it began."""


def change_of(
    call: str, model: nn.Module, calibration: tuple[Tensor, ...], distance: Distance, batch: int
) -> Effect:
    """The effect as the distance between the outputs of a network and those of ``model`` on ``calibration``.

    Args:
        calibration: one tensor [N, ...] per argument of ``forward``.
        batch: how many samples run at a time.

    Raises:
        InputError: there are no samples, or not the same number in each tensor.
        ModelError: the network does not run on them, or has no output of floating point.
    """
    if (
        not calibration
        or any(x.dim() == 0 for x in calibration)
        or len({len(x) for x in calibration}) != 1
        or not len(calibration[0])
    ):
        raise InputError(
            call,
            "calibration holds no samples, or not as many in each tensor",
            "Give one tensor [N, ...] each",
        )
    try:
        due = list(_outputs(model, calibration, batch))
    except Exception as error:
        raise ModelError(
            call,
            f"the network does not run on the calibration samples ({type(error).__name__}: {error})",
            "Give samples of the shapes and dtypes of example_inputs",
        ) from error
    if not due[0]:
        raise ModelError(call, "no output is of floating point", "Return logits, or give measure")

    def effect(changed: nn.Module) -> float:
        now = _outputs(changed, calibration, batch)
        pairs = list(zip(due, now, strict=True))
        off = _kl(pairs) if distance == "kl" else _l2(pairs)
        if not math.isfinite(off):
            raise ModelError(
                call,
                f"without a layer the outputs on the calibration samples are off by {off}",
                "Clean the samples of NaN, and load the weights of a training that did not diverge",
            )
        return off

    return effect


def _outputs(model: nn.Module, samples: tuple[Tensor, ...], batch: int) -> Iterator[list[Tensor]]:
    for start in range(0, len(samples[0]), batch):
        returned = tensors_of(forward_eval(model, tuple(x[start : start + batch] for x in samples)))
        yield [output.double() for output in returned if output.is_floating_point()]


_Pairs = list[tuple[list[Tensor], list[Tensor]]]


def _l2(pairs: _Pairs) -> float:
    shares = []
    for place in range(len(pairs[0][0])):
        off = sum(float((now[place] - due[place]).square().sum()) for due, now in pairs)
        whole = sum(float(due[place].square().sum()) for due, _ in pairs)
        shares.append(math.sqrt(off / max(whole, 1e-300)))
    return sum(shares) / len(shares)


def _kl(pairs: _Pairs) -> float:
    total, rows = 0.0, 0
    for due, now in pairs:
        p, q = due[0].log_softmax(-1), now[0].log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
        rows += p[..., 0].numel()
    return total / rows


def loss_of(call: str, measure: Callable[[nn.Module], float]) -> Effect:
    """The effect as minus the quality that the user measures.

    Raises:
        InputError: ``measure`` returns no finite number.
    """

    def effect(changed: nn.Module) -> float:
        with torch.no_grad():
            quality = measure(changed)
        if isinstance(quality, bool) or not isinstance(quality, int | float) or not math.isfinite(quality):
            raise InputError(call, f"measure returned {quality!r}", "Return the quality as a finite number")
        return -float(quality)

    return effect
