"""What each layer loses at each number of bits, while all others stay float: measured on samples.

The loss of a layer is how far the network's outputs move, Σ (y' - y)² / Σ y² over all samples. For changes that are
small and independent the losses of several layers add up, which is what choosing bits per layer builds on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tinypress.bits import packed_bytes
from tinypress.errors import DataError, InputError
from tinypress.facts import Compressed, QuantizedWeight
from tinypress.quantize.affine import Scheme
from tinypress.quantize.layer import dequantize_layer_weights, quantize_weight, weight_of
from tinypress.quantize.mse import least_squared_error
from tinypress.quantize.rows import Grid, check_settings, whole_range
from tinypress.quantize.shared import Choice, choose
from tinypress.quantize.weights_only import folded
from tinypress.task import Split
from tinypress.train.progress import Progress, silent
from tinypress.train.sealed import hash_of, read_sealed, write_sealed

FLOAT = 32
"""Stands for the bits of a layer that keeps its float weights."""
_BATCH = 64

Distance = Callable[[Tensor, Tensor], float]
"""How bad outputs are beside those of the float network, both [N, ...]: 0 where they are equal."""


@dataclass(frozen=True)
class LayerBits:
    """One layer at one number of bits: bytes of its integers and scales, what is lost, and once they were timed the
    milliseconds that it takes for one sample."""

    layer: str
    bits: int
    weight_bytes: int
    loss: float
    latency_ms: float | None = None


def output_error(outputs: Tensor, exact: Tensor) -> float:
    """Σ (y' - y)² / Σ y²."""
    moved = (outputs.double() - exact.double()).square().sum()
    return float(moved / exact.double().square().sum().clamp_min(torch.finfo(torch.float64).tiny))


def measure_sensitivity(
    model: nn.Module | Compressed,
    samples: Split,
    example_inputs: tuple[Tensor, ...],
    bits: Sequence[int] = (8, 6, 5, 4, 3, 2),
    *,
    scheme: Scheme = "symmetric",
    group_size: int | None = None,
    distance: Distance = output_error,
    embeddings: Collection[str] = (),
    keep: Collection[str] = (),
    cache: Path | None = None,
    progress: Progress = silent,
) -> tuple[LayerBits, ...]:
    """Each layer that could be quantized at each of ``bits`` and, last, as it is (``FLOAT``), in the network's order.

    Weights are rounded under the range with the least squared error, at 8 bits under their whole range.

    Args:
        samples: real data; labels are not looked at.
        distance: what counts as loss.
        cache: a file that keeps what was measured, so that a measurement that is cut short goes on; one of other
            weights, samples or settings is made anew.

    Raises:
        InputError: a setting out of range or a name that is no such layer.
        ModelError: there is nothing to quantize, or a weight holds NaN, infinity or more than 1e38.
        DataError: the network's outputs are not finite on the samples.
    """
    before = model if isinstance(model, Compressed) else Compressed(model)
    call = f"measure_sensitivity({type(before.model).__name__}, {len(samples)} samples, bits={tuple(bits)!r})"
    if not bits or len(set(bits)) != len(bits):
        raise InputError(call, "bits are none, or one of them twice", "Give some of 2 to 8, each once")
    for each in bits:
        check_settings(call, each, scheme, group_size)
    network, _ = folded(before.model, example_inputs)
    network = copy.deepcopy(network).eval()
    choices, _ = choose(call, network, frozenset(embeddings), frozenset(keep))
    key = hash_of(
        {"bits": list(bits), "scheme": scheme, "group": group_size, "distance": _name(distance)},
        {**dict(network.state_dict()), **{f"input {place}": x for place, x in enumerate(samples.inputs)}},
    )
    known = _read(cache, key)
    exact = _outputs(network, samples)
    if not bool(torch.isfinite(exact).all()):
        raise DataError(call, "the outputs are NaN or infinite", "Check the samples and the weights")
    found: list[LayerBits] = []
    total = len(choices) * len(bits)
    for choice in choices:
        parameter = choice.layers[0].weight
        assert isinstance(parameter, Tensor)
        kept = parameter.detach().clone()
        for each in bits:
            named = f"{call}, layer {choice.names[0]!r}"
            packed = _packed(named, choice, Grid(each, scheme, group_size))
            place = f"{choice.names[0]} {each}"
            if place not in known:
                parameter.data = dequantize_layer_weights(packed).to(parameter)
                known[place] = distance(_outputs(network, samples), exact)
                parameter.data = kept
                if cache is not None:
                    write_sealed(cache, {}, {"key": key, "losses": known})
            found.append(LayerBits(choice.names[0], each, weight_bytes(packed), known[place]))
            progress("measuring sensitivities", len(found) - len(found) // (len(bits) + 1), total)
        found.append(LayerBits(choice.names[0], FLOAT, kept.numel() * kept.element_size(), 0.0))
    return tuple(found)


def weight_bytes(packed: QuantizedWeight) -> int:
    """Bytes of the integers, of a float32 scale for each row or group and, where they are not 0, of zero points."""
    scales = packed.scale.numel()
    zeros = packed_bytes(scales, packed.bits) if packed.scheme == "affine" else 0
    return packed.packed.numel() + 4 * scales + zeros


def _packed(call: str, choice: Choice, grid: Grid) -> QuantizedWeight:
    fit = whole_range if grid.bits == 8 else least_squared_error
    return quantize_weight(call, weight_of(call, choice.layers[0]), 0, grid, fit)


@torch.no_grad()
def _outputs(network: nn.Module, samples: Split) -> Tensor:
    rows = [
        network(*(x[start : start + _BATCH] for x in samples.inputs))
        for start in range(0, len(samples), _BATCH)
    ]
    return torch.cat(rows)


def _read(cache: Path | None, key: str) -> dict[str, float]:
    found = None if cache is None else read_sealed(cache)
    if found is None or found[1].get("key") != key:
        return {}
    return dict(found[1]["losses"])


def _name(distance: Distance) -> str:
    return f"{getattr(distance, '__module__', '')}.{getattr(distance, '__qualname__', repr(distance))}"
