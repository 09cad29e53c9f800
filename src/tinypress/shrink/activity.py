"""How active each neuron is on calibration samples, recorded in one run for all layers that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tinypress.graph import check_example, forward_eval
from tinypress.layers import copy_model


def record_activity(
    call: str, model: nn.Module, paths: Sequence[str], inputs: tuple[Tensor, ...], batch: int = 256
) -> dict[str, Tensor]:
    """The mean of |output| of each neuron over samples and positions, by path, as [1, out].

    The network runs in eval mode, ``batch`` samples at a time; a layer that is called twice counts twice.

    Raises:
        InputError: ``inputs`` is not a tuple of tensors.
        ModelError: the network does not run on ``inputs``, or returns NaN.
    """
    copied = copy_model(model)
    rows = [len(x) if isinstance(x, Tensor) and x.dim() else 0 for x in inputs]
    check_example(call, copied, inputs if len(set(rows)) > 1 else tuple(x[:batch] for x in inputs))
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for path in paths:
        copied.get_submodule(path).register_forward_hook(_adder(path, sums, counts))
    if len(set(rows)) > 1:  # not one row per sample in every input
        forward_eval(copied, tuple(inputs))
    else:
        for start in range(0, rows[0], batch):
            forward_eval(copied, tuple(x[start : start + batch] for x in inputs))
    return {path: (sums[path] / counts[path])[None] for path in sums}


def _adder(path: str, sums: dict[str, Tensor], counts: dict[str, int]) -> Callable[..., None]:
    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        # The neurons of a linear layer are in the last dimension, those of a convolution before its positions.
        values = output.detach().movedim(1 - weight.dim(), 0).flatten(1).double().abs()
        sums[path] = sums.get(path, torch.zeros(len(values), dtype=torch.float64)) + values.sum(dim=1).cpu()
        counts[path] = counts.get(path, 0) + values.shape[1]

    return add
