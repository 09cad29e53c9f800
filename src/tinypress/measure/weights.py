"""The weights of a network: how many, how many bytes, how they are spread. Nothing is run.

A *weight* here is a floating-point parameter of two or more dimensions (what pruning and packing work on);
biases and the scales of normalizations are parameters, but not weights. Names are those of
``named_modules()``: a bare layer's own name is the empty text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Compressed, QuantizedWeight
from tinypress.receipt import Histogram

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters; one shared by several layers counts once, in the first."""

    total: int
    trainable: int
    by_layer: Mapping[str, int]


@dataclass(frozen=True)
class ModelSize:
    """Bytes of the values alone: a file adds names, a graph and a header.

    ``by_dtype`` has keys such as "float32"; packed integers are "int8" down to "int2". ``by_layer`` holds
    parameters and buffers.
    """

    total_bytes: int
    parameter_bytes: int
    buffer_bytes: int
    by_dtype: Mapping[str, int]
    by_layer: Mapping[str, int]


@dataclass(frozen=True)
class Distribution:
    """How the weights of one layer, or of all, are spread.

    ``std`` is of the population; ``quantiles`` maps 0.05, 0.25, 0.5, 0.75 and 0.95 to values;
    ``near_zero`` is the share of |w| at most the threshold, ``sparsity`` that of exact zeros.
    """

    count: int
    mean: float
    std: float
    low: float
    high: float
    quantiles: Mapping[float, float]
    histogram: Histogram
    near_zero: float
    sparsity: float


@dataclass(frozen=True)
class WeightDistribution:
    """The spread of all weights, and of each layer's."""

    whole: Distribution
    by_layer: Mapping[str, Distribution]


class CompressionMetrics:
    """The three questions asked of a network before and after compressing it."""

    @staticmethod
    def count_parameters(model: nn.Module | Compressed) -> ParameterCount:
        """Count the parameters of a network or layer, shared ones once.

        Raises:
            InputError: that is no network.
            ModelError: it has no parameters.
        """
        owned = _parameters("count_parameters", model)
        by_layer: Counter[str] = Counter()
        for layer, _, parameter in owned:
            by_layer[layer] += parameter.numel()
        trainable = sum(p.numel() for _, _, p in owned if p.requires_grad)
        return ParameterCount(by_layer.total(), trainable, dict(by_layer))

    @staticmethod
    def calculate_model_size(model: nn.Module | Compressed, *, bits: int | None = None) -> ModelSize:
        """Bytes of parameters and buffers.

        With ``bits``, what they would take with each weight tensor of n values packed into ceil(n bits / 8)
        bytes, not counting scales. A ``Compressed`` that carries a quantization plan is counted as packed:
        the integers, the scales, and zero points where the scheme is affine.

        Raises:
            InputError: that is no network; bits outside 2..8, or given for a network that has a plan.
            ModelError: it has no parameters, or lacks one that its plan names.
        """
        call = f"calculate_model_size({_name(model)}, bits={bits})"
        owned = _parameters("calculate_model_size", model)
        plan = model.plan.weights if isinstance(model, Compressed) and model.plan is not None else {}
        if bits is not None and not (isinstance(bits, int) and 2 <= bits <= 8):
            raise InputError(
                call, f"{bits} bits cannot be packed", "Give 2 to 8 bits, or None for the size as it is"
            )
        if bits is not None and plan:
            raise InputError(
                call, "the network is quantized already", "Leave bits out to count its packed bytes"
            )
        unknown = set(plan) - {name for _, name, _ in owned}
        if unknown:
            raise ModelError(
                call, f"the plan names {min(unknown)!r}, which the network lacks", "Quantize it again"
            )
        by_dtype: Counter[str] = Counter()
        by_layer: Counter[str] = Counter()
        for layer, name, parameter in owned:
            stored = _stored_bytes(parameter, plan.get(name), bits)
            by_dtype.update(stored)
            by_layer[layer] += sum(stored.values())
        parameter_bytes = by_layer.total()
        for layer, buffer in _buffers(_network(model)):
            by_dtype[_dtype(buffer)] += buffer.nbytes
            by_layer[layer] += buffer.nbytes
        total = by_layer.total()
        return ModelSize(total, parameter_bytes, total - parameter_bytes, dict(by_dtype), dict(by_layer))

    @staticmethod
    def analyze_weight_distribution(
        model: nn.Module | Compressed, *, near_zero: float = 1e-3, bins: int = 40
    ) -> WeightDistribution:
        """Mean, spread, quantiles, histogram and zeros of the weights, per layer and in all.

        Raises:
            InputError: that is no network, ``near_zero`` below 0 or NaN, or ``bins`` below 1.
            ModelError: it has no weights, or one of them is NaN or infinite.
        """
        call = f"analyze_weight_distribution({_name(model)}, near_zero={near_zero}, bins={bins})"
        if not near_zero >= 0:
            raise InputError(
                call, f"near_zero is {near_zero}", "Give the largest magnitude that counts, 0 or more"
            )
        layers: dict[str, list[NDArray[np.floating]]] = {}
        for layer, name, parameter in _parameters("analyze_weight_distribution", model):
            if not _is_weight(parameter):
                continue
            if not bool(torch.isfinite(parameter).all()):
                raise ModelError(
                    call, f"parameter {name!r} holds NaN or infinity", "Load the trained weights again"
                )
            layers.setdefault(layer, []).append(_flat(parameter))
        if not layers:
            raise ModelError(call, "no parameter has two or more dimensions", "Give a network with weights")
        joined = {layer: np.concatenate(parts) for layer, parts in layers.items()}
        return WeightDistribution(
            _distribution(np.concatenate(list(joined.values())), near_zero, bins),
            {layer: _distribution(values, near_zero, bins) for layer, values in joined.items()},
        )


def histogram(values: Tensor, bins: int = 40) -> Histogram:
    """Counts of ``values`` in ``bins`` equal bins from the smallest to the largest; the last bin is closed.

    Where all values are equal, the bins span them by a half on either side.

    Raises:
        InputError: no values, NaN or infinity among them, or ``bins`` below 1.
    """
    if values.numel() and not bool(torch.isfinite(values).all()):
        raise InputError(
            f"histogram({tuple(values.shape)})", "NaN or infinity is among the values", "Clean them first"
        )
    return _histogram(_flat(values), bins)


def _histogram(values: NDArray[np.floating], bins: int) -> Histogram:
    call = f"histogram(<{values.size} values>, bins={bins})"
    if values.size == 0 or bins < 1:
        raise InputError(call, "there is nothing to count", "Give at least one value and one bin")
    low, high = float(values.min()), float(values.max())
    if low == high:
        half = max(0.5, abs(low) / 2)  # so that the bins stay apart around a very large value
        low, high = low - half, high + half
    counts = np.zeros(bins, dtype=np.int64)
    for start in range(0, values.size, 2**20):  # in blocks, for no second copy of a large network
        place = (values[start : start + 2**20].astype(np.float64) - low) / (high - low) * bins
        counts += np.bincount(np.minimum(place.astype(np.int64), bins - 1), minlength=bins)
    return Histogram(low=low, high=high, counts=tuple(counts.tolist()))


def _distribution(values: NDArray[np.floating], near_zero: float, bins: int) -> Distribution:
    return Distribution(
        count=values.size,
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        low=float(values.min()),
        high=float(values.max()),
        quantiles=dict(zip(QUANTILES, np.quantile(values, QUANTILES).tolist(), strict=True)),
        histogram=_histogram(values, bins),
        near_zero=float((np.abs(values) <= near_zero).mean()),
        sparsity=float((values == 0).mean()),
    )


def _parameters(method: str, model: nn.Module | Compressed) -> list[tuple[str, str, nn.Parameter]]:
    """(layer, full name, parameter) of each parameter, once."""
    network = _network(model)
    if not isinstance(network, nn.Module):
        raise InputError(f"{method}({_name(model)})", "that is no network", "Give a torch.nn.Module")
    once: dict[int, tuple[str, str, nn.Parameter]] = {}
    for layer, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            once.setdefault(id(parameter), (layer, f"{layer}.{name}" if layer else name, parameter))
    if not once:
        raise ModelError(
            f"{method}({_name(model)})", "the network has no parameters", "Give a trained network"
        )
    return list(once.values())


def _buffers(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(layer, buffer) of each buffer, once."""
    for name, buffer in network.named_buffers():
        yield name.rpartition(".")[0], buffer


def _stored_bytes(parameter: Tensor, packed: QuantizedWeight | None, bits: int | None) -> Counter[str]:
    """Bytes by dtype in which one parameter is stored."""
    if packed is not None and packed.is_half:
        return Counter({packed.scheme: packed.packed.nbytes})
    if packed is not None:
        stored = Counter({f"int{packed.bits}": packed.packed.nbytes})
        stored[_dtype(packed.scale)] += packed.scale.nbytes
        if packed.scheme == "affine":
            stored[_dtype(packed.zero_point)] += packed.zero_point.nbytes
        return stored
    if bits is not None and _is_weight(parameter):
        return Counter({f"int{bits}": math.ceil(parameter.numel() * bits / 8)})
    return Counter({_dtype(parameter): parameter.nbytes})


def _is_weight(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and parameter.is_floating_point()


def _flat(values: Tensor) -> NDArray[np.floating]:
    """The values in one row, float32 or float64."""
    wide = values.detach().cpu() if values.dtype == torch.float64 else values.detach().cpu().float()
    return wide.reshape(-1).numpy()


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _network(model: nn.Module | Compressed) -> nn.Module:
    return model.model if isinstance(model, Compressed) else model


def _name(model: object) -> str:
    return type(model.model if isinstance(model, Compressed) else model).__name__
