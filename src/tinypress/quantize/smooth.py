"""SmoothQuant: large inputs of a product are made smaller and its weights larger (Xiao et al. 2023, arXiv:2211.10438).

Y = (X diag(s)^-1) (diag(s) W) is the same product (their equation 3) for every s > 0; with

    s_i = max|X_i|^alpha / max|W_i|^(1 - alpha)                                                      (equation 4)

channels with outliers leave steps to the others. The division is folded into what makes X: a LayerNorm all of whose
readers are linear layers (one s for all of them, of their joint weights); layers with only ReLU between them are the
business of equalization. Nothing is left to compute when the network runs.

Axes: I input channels of the product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed, Note
from tinypress.graph import forward_eval, norm_readers, trace
from tinypress.layers import copy_model
from tinypress.task import Split

_SAMPLES = 64
_FURTHEST = 1e4


def smooth_layers(
    model: nn.Module | Compressed, example_inputs: tuple[Tensor, ...], samples: Split, alpha: float = 0.5
) -> Compressed:
    """The same function with the outliers of the inputs of linear layers moved into their weights.

    Args:
        samples: like those the network will see; the first 64 show how large each channel becomes.
        alpha: how much of the difficulty moves from the inputs to the weights.

    Returns:
        the network, a change for each LayerNorm, and a note (TP232) where there is none to fold factors into.

    Raises:
        InputError: ``alpha`` is not between 0 and 1.
        ModelError: the network cannot be traced.
    """
    before = model if isinstance(model, Compressed) else Compressed(model)
    call = f"smooth_layers({type(before.model).__name__}, alpha={alpha!r})"
    check_alpha(call, alpha)
    places = norm_readers(trace(before.model, example_inputs))
    if not places:
        text = "no LayerNorm is read by linear layers alone: there is nothing to smooth"
        return Compressed(
            before.model,
            before.changes,
            (*before.notes, Note("TP232", "note", None, text)),
            before.pruned,
            before.plan,
        )
    network = copy_model(before.model).eval()
    largest = _largest(network, [norm for norm, _ in places], samples)
    changes = []
    for norm_name, reader_names in places:
        norm = network.get_submodule(norm_name)
        readers = [network.get_submodule(name) for name in reader_names]
        if not isinstance(norm, nn.LayerNorm) or not all(isinstance(each, nn.Linear) for each in readers):
            continue
        factor_I = _fold(
            norm, [each for each in readers if isinstance(each, nn.Linear)], largest[norm_name], alpha
        )
        changes.append(
            Change(norm_name, "largest factor moved into the weights behind it", 1.0, float(factor_I.max()))
        )
    return Compressed(network, (*before.changes, *changes), before.notes, before.pruned, before.plan)


def check_alpha(call: str, alpha: float) -> None:
    """Refuse an ``alpha`` that is no number from 0 to 1.

    Raises:
        InputError: it is not.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise InputError(call, f"alpha is {alpha!r}", "Give a number from 0 to 1, such as 0.5")


@torch.no_grad()
def _fold(norm: nn.LayerNorm, readers: Sequence[nn.Linear], largest_I: Tensor, alpha: float) -> Tensor:
    """Divide the norm by s and multiply the weights of its readers with it; returns s, float64 [I]."""
    weights_I = torch.stack([reader.weight.double().abs().amax(0) for reader in readers]).amax(0)
    factor_I = largest_I**alpha / weights_I ** (1 - alpha)
    usable = (largest_I > 0) & (weights_I > 0)
    factor_I = torch.where(usable, factor_I.clamp(1 / _FURTHEST, _FURTHEST), 1.0)
    for parameter in (norm.weight, norm.bias):
        if parameter is not None:
            parameter.data = (parameter.double() / factor_I).to(parameter.dtype)
    for reader in readers:
        reader.weight.data = (reader.weight.double() * factor_I).to(reader.weight.dtype)
    return factor_I


def _largest(network: nn.Module, names: Sequence[str], samples: Split) -> dict[str, Tensor]:
    """The largest magnitude of each channel that some LayerNorms make, float64 [I]."""
    found: dict[str, Tensor] = {}
    hooks = []
    for name in names:

        def keep(norm: nn.Module, _: object, made: Tensor, name: str = name) -> None:
            found[name] = made.reshape(-1, made.shape[-1]).abs().amax(0).double()

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        forward_eval(network, tuple(x[:_SAMPLES] for x in samples.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found
