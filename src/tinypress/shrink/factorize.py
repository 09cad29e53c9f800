"""Factorising: a layer's weight as a product of two thinner ones, which is exact only for weights of that rank.

Low rank: Denton et al., "Exploiting Linear Structure Within Convolutional Networks" (2014), section 3; of convolutions
the scheme of Zhang et al., "Accelerating Very Deep Convolutional Networks" (2016), section 3.1. Depthwise-separable:
Howard et al., "MobileNets" (2017), section 3.1, here begun from the weights that are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinypress.arguments import is_number
from tinypress.errors import InputError, ModelError
from tinypress.facts import Change, Compressed, Note
from tinypress.graph import check_example
from tinypress.layers import can_be_paired, copy_model, paired, replace_module
from tinypress.shrink.asked import check_model
from tinypress.shrink.config import configs_without_pairs
from tinypress.shrink.keep import held_by


def factorize_model(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    energy: float | None = None,
    parameters: float | None = None,
    separable: bool = False,
    keep: Sequence[str] = (),
) -> Compressed:
    """Replace linear layers and convolutions by two thinner layers each, where that takes fewer parameters.

    A weight W [out, in * kernel] = U S V^T becomes sqrt(S) V^T of the first r rows and U sqrt(S) of the first r
    columns. Each layer's r is the smallest with sum of the first s^2 at least ``energy`` of all, or, for
    ``parameters``, what a common price of s^2 per parameter leaves. With ``separable`` each convolution becomes one
    filter per input channel and a 1x1 convolution: of each channel's weights [out, kernel] the best product.

    Args:
        model: the network; not changed.
        example_inputs: one tensor [B, ...] per argument of ``forward``; the result is run on it.
        energy: share of the squared weights to keep, above 0 and at most 1. Give this, ``parameters``, or neither
            with ``separable``.
        parameters: the most parameters of the whole network, or a fraction of them below 1.
        separable: factorise convolutions with a kernel as MobileNet does, and nothing else.
        keep: paths of layers, or of modules with all that is in them, that stay as they are.

    Raises:
        InputError: a share out of range, or not one of the settings.
        ModelError: the network does not run; no layer gets smaller; or the budget cannot be met.
    """
    call = f"factorize_model({type(model).__name__}, energy={energy}, parameters={parameters}, separable={separable})"
    check_model(call, model, keep)
    _check(call, energy, parameters, separable)
    made = copy_model(model)
    check_example(call, made, example_inputs)
    layers, notes = _candidates(made, "separable" if separable else "low rank", keep)
    changes: list[Change] = []
    if separable:
        for path, layer in layers.items():
            replace_module(made, path, _separated(layer))
            changes.append(Change(path, "layers", 1, 2))
    else:
        spectra = {path: _spectrum(call, path, layer) for path, layer in layers.items()}
        values = {path: s.square() for path, (_, s, _) in spectra.items()}
        ranks = (
            _by_energy(values, energy)
            if energy is not None
            else _by_budget(call, model, layers, values, parameters)
        )
        for path, rank in ranks.items():
            layer, full = layers[path], len(values[path])
            if rank * _cost(layer) >= _weights(layer):
                notes.append(
                    _kept(path, f"rank {rank} of {full} would take more parameters than the layer has")
                )
                continue
            replace_module(made, path, _product(layer, spectra[path], rank))
            changes.append(Change(path, "rank", full, rank))
    if not changes:
        reasons = "; ".join(note.text for note in notes) or "it has no linear layer or convolution"
        raise ModelError(
            call, f"no layer gets smaller ({reasons})", "Ask for less energy, or prune or quantize"
        )
    check_example(call, made, example_inputs)
    return Compressed(made, tuple(changes), (*notes, *configs_without_pairs(model, made)))


def _check(call: str, energy: float | None, parameters: float | None, separable: bool) -> None:
    if not isinstance(separable, bool):
        raise InputError(call, f"separable is {separable!r}", "Give True or False")
    given = [name for name, value in (("energy", energy), ("parameters", parameters)) if value is not None]
    if len(given) + separable != 1:
        raise InputError(
            call, "it needs one of energy, parameters and separable", "Give energy=0.9, for example"
        )
    for name, value in (("energy", energy), ("parameters", parameters)):
        if value is None:
            continue
        most = 1 if name == "energy" else math.inf
        if not is_number(value) or not 0 < value <= most:
            raise InputError(
                call, f"{name} is {value!r}", f"Give a number above 0{' and at most 1' * (most == 1)}"
            )


def _candidates(model: nn.Module, pair: str, keep: Sequence[str]) -> tuple[dict[str, nn.Module], list[Note]]:
    uses: dict[int, int] = {}
    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    layers: dict[str, nn.Module] = {}
    notes = []
    for path, layer in model.named_modules():
        if not path or not can_be_paired(layer, pair):  # type: ignore[arg-type]
            continue
        if held_by([path], keep) is not None:
            notes.append(_kept(path, "as asked"))
        elif any(uses[id(parameter)] > 1 for parameter in layer.parameters()):
            notes.append(_kept(path, "it shares its weight with another layer"))
        else:
            layers[path] = layer
    return layers, notes


def _kept(path: str, why: str) -> Note:
    return Note("TP305", "note", path, f"{path} stays one layer: {why}")


def _spectrum(call: str, path: str, layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    matrix = _matrix(layer)
    if not bool(torch.isfinite(matrix).all()):
        raise ModelError(
            call,
            f"the weight of {path!r} is NaN or infinite",
            "Load the weights of a training that did not diverge",
        )
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh


def _matrix(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().double().flatten(1)


def _weights(layer: nn.Module) -> int:
    return _matrix(layer).numel()


def _cost(layer: nn.Module) -> int:
    """Parameters that one more rank takes."""
    return sum(_matrix(layer).shape)


def _by_energy(values: dict[str, Tensor], energy: float) -> dict[str, int]:
    ranks = {}
    for path, squares in values.items():
        share = squares.cumsum(0) / squares.sum().clamp(min=1e-300)
        ranks[path] = min(int((share < energy - 1e-12).sum()) + 1, len(squares))
    return ranks


def _by_budget(
    call: str,
    model: nn.Module,
    layers: dict[str, nn.Module],
    values: dict[str, Tensor],
    parameters: float | None,
) -> dict[str, int]:
    """Ranks of which every kept singular value is worth the same price per parameter, as dear as it has to be."""
    assert parameters is not None
    whole = sum(parameter.numel() for parameter in model.parameters())
    most = parameters * whole if parameters < 1 else parameters
    rest = whole - sum(map(_weights, layers.values()))

    def ranks_at(price: float) -> dict[str, int]:
        return {
            path: max(int((squares / squares.sum().clamp(min=1e-300) / _cost(layers[path]) > price).sum()), 1)
            for path, squares in values.items()
        }

    def total(price: float) -> int:
        ranks = ranks_at(price)
        return rest + sum(
            min(rank * _cost(layers[path]), _weights(layers[path])) for path, rank in ranks.items()
        )

    low, high = 0.0, 1.0
    if total(high) > most:
        raise ModelError(
            call,
            f"parameters cannot fall to {most:.0f}: at rank 1 they are {total(high)}",
            "Allow more, or prune",
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if total(middle) <= most else (middle, high)
    return ranks_at(high)


def _product(layer: nn.Module, spectrum: tuple[Tensor, Tensor, Tensor], rank: int) -> nn.Sequential:
    u, s, vh = spectrum
    root = s[:rank].sqrt()
    pair = paired(layer, "low rank", rank)
    return _filled(pair, layer, root[:, None] * vh[:rank], u[:, :rank] * root)


def _separated(layer: nn.Module) -> nn.Sequential:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    by_channel = weight.detach().double().flatten(2).transpose(0, 1)  # [in, out, kernel]
    u, s, vh = torch.linalg.svd(by_channel, full_matrices=False)
    root = s[:, :1].sqrt()
    return _filled(paired(layer, "separable"), layer, vh[:, 0] * root, (u[:, :, 0] * root).T)


def _filled(pair: nn.Sequential, layer: nn.Module, first: Tensor, second: Tensor) -> nn.Sequential:
    with torch.no_grad():
        for made, values in zip(pair, (first, second), strict=True):
            weight = made.weight
            assert isinstance(weight, Tensor)
            weight.copy_(values.reshape(weight.shape))
        if isinstance(layer.bias, Tensor):
            pair[1].bias.copy_(layer.bias)  # type: ignore[operator]
    return pair
