"""A whole network to int8: batch norm folded, weights packed, activations calibrated or rounded at run time.

All decisions are in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError, ModelError
from tinypress.facts import Change, Compressed, Note, QuantizedValue, QuantizedWeight, QuantPlan
from tinypress.float_onnx import to_float_onnx
from tinypress.graph import batch_norm_pairs, trace
from tinypress.layers import copy_model
from tinypress.protocols import Quantize
from tinypress.quantize.bias import with_room
from tinypress.quantize.by_layer import Bits, bits_of, check_bits, shown
from tinypress.quantize.calibration import judge_calibration
from tinypress.quantize.clipping import SHARE
from tinypress.quantize.dynamic import ROUNDING, at_run_time, fitting, rounding, what_it_costs
from tinypress.quantize.equalize import equalize_layers
from tinypress.quantize.fold import fold_batch_norms
from tinypress.quantize.fused import has_integer_kernel
from tinypress.quantize.layer import dequantize_layer_weights, quantize_layer_weights
from tinypress.quantize.moments import restore_moments
from tinypress.quantize.projections import as_linear, input_projection, put_projection
from tinypress.quantize.ranges import Ranges, check_ranges
from tinypress.quantize.recurrent import RECURRENT, has_plain_state, matrices
from tinypress.quantize.smooth import check_alpha, smooth_layers
from tinypress.quantize.values import calibrate
from tinypress.task import Split
from tinypress.train.progress import Progress, silent

_QUANTIZED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
_NAMED = (*_QUANTIZED, nn.MultiheadAttention)  # attention's projection of its inputs is a Linear of its own
_Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding
_LEFT_FLOAT = (
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.Bilinear,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def quantize_model(
    model: nn.Module | Compressed,
    calibration: Split | None,
    example_inputs: tuple[Tensor, ...],
    *,
    bits: Bits = 8,
    scheme: Literal["symmetric", "affine"] = "symmetric",
    per_channel: bool = True,
    keep: Collection[str] = (),
    dynamic: bool | Collection[str] = False,
    ranges: Ranges = "minmax",
    other_ranges: Mapping[str, Ranges] | None = None,
    percentile: float = SHARE,
    reference: Split | None = None,
    equalize: bool = False,
    smooth: float | None = None,
    bias_correction: bool = False,
    batch_norm: Split | None = None,
    power_of_two: bool = False,
    quantize: Quantize = quantize_layer_weights,
    progress: Progress = silent,
) -> Compressed:
    """Quantize the weights of every Linear, Conv and Embedding and, with ``calibration``, the activations between them.

    The network that comes back has batch norm folded and holds the dequantized weights; the plan holds the
    integers and, for 8-bit weights, scale and zero point of each activation. Weights that were zero stay zero.

    Args:
        calibration: samples like those the network will see; ``None`` quantizes the weights alone.
        bits: 2 to 8 for each weight, or those of each layer by its name (one that is not named stays float).
            Activations are calibrated around layers of 8 symmetric bits only, which is what integer kernels take.
        keep: names of layers that stay float.
        dynamic: layers, or all of them, whose input is rounded at run time to the range that it then has: it needs no
            calibration, costs a pass over each input, and is how LSTM gets 8 bits. Other recurrent layers store 8 bits
            and compute in float.
        ranges: how the range of an activation is chosen: ``minmax``, ``moving``, ``percentile``, ``mse``, ``entropy``.
        other_ranges: another way for single activations, by the name of the layer that makes it, or of its value.
        percentile: the share of the numbers that ``percentile`` keeps inside at each end.
        reference: data that the network was trained on, by which the calibration samples are judged.
        equalize: share out the channels' ranges among neighbouring layers first (``equalize_layers``).
        smooth: the alpha with which outliers of activations are moved into the weights (``smooth_layers``).
        bias_correction: give every channel the mean back that rounding its weights moved.
        batch_norm: samples on which every channel gets its spread back as well, as from a batch norm whose moments were
            estimated again behind the quantized weights (``moments.py``).
        power_of_two: scales are powers of two, for targets that shift; costs up to a bit of resolution. Those of values
            behind a ReLU6 stay as they are, with a note; what rounds at run time has them for its weights alone.
        progress: is told which layer is quantized, and when ranges are observed.

    Raises:
        InputError: a setting out of range, a name that is no such layer, or a network that is quantized already.
        ModelError: no layer can be quantized, the network cannot be traced, or ``quantize`` broke a weight.
        DataError: nothing can be learnt from the calibration samples.
    """
    before = model if isinstance(model, Compressed) else Compressed(model)
    call = f"quantize_model({type(before.model).__name__}, bits={shown(bits)}, scheme={scheme!r})"
    if before.plan is not None:
        raise InputError(call, "the network is quantized already", "Quantize once, as the last step")
    others = dict(other_ranges or {})
    check_ranges(call, (ranges, *others.values()), percentile)
    if others and calibration is None:
        raise InputError(call, "other_ranges are for activations", "Give calibration samples")
    if power_of_two:
        quantize = _by_powers_of_two(call, quantize, batch_norm)
    kept = _first_names(call, before.model, "keep", keep)
    check_bits(call, bits, scheme, None)
    if isinstance(bits, Mapping):
        named = _first_names(call, before.model, "bits", bits)
        kept |= {name for name, layer in before.model.named_modules() if isinstance(layer, _NAMED)} - named
    every = dynamic is True
    wanted = at_run_time(before.model) - kept
    if not isinstance(dynamic, bool):
        wanted = _first_names(call, before.model, "dynamic", dynamic, ROUNDING)
    now = fitting(call, before.model, wanted, kept, bits, scheme, every) if dynamic else frozenset[str]()
    judged = judge_calibration(call, before, calibration, reference) if calibration is not None else ()
    if smooth is not None:
        check_alpha(call, smooth)
    if (bias_correction or smooth is not None) and calibration is None:
        raise DataError(call, "what activations become is seen on samples only", "Give calibration samples")
    folded = fold_batch_norms(before.model, batch_norm_pairs(trace(before.model, example_inputs)))
    if smooth is not None and calibration is not None:
        before = smooth_layers(replace(before, model=folded), example_inputs, calibration, smooth)
        folded = before.model
    if equalize:
        before = equalize_layers(replace(before, model=folded), example_inputs, calibration)
        folded = before.model
    original = copy_model(folded)
    weights: dict[str, QuantizedWeight] = {}
    changes, notes = [], [*judged]
    done: dict[Tensor, tuple[str, _Layer]] = {}

    def bits_for(name: str) -> int:
        return bits if isinstance(bits, int) else bits_of(_names(before.model, name), bits)

    modules = list(folded.named_modules())
    for number, (name, layer) in enumerate(modules):
        progress("quantizing the weights", number, len(modules))
        projection = input_projection(layer) if isinstance(layer, nn.MultiheadAttention) else None
        if isinstance(layer, RECURRENT) and name in now:
            for short in matrices(layer):
                whole = as_linear(getattr(layer, short))
                packed = quantize(whole, 8, scheme=scheme, per_channel=per_channel)
                _put(call, f"{name}.{short}", whole, packed)
                setattr(layer, short, whole.weight)
                weights[f"{name}.{short}"] = packed
                changes.append(Change(f"{name}.{short}", "bits", 8 * whole.weight.element_size(), 8))
        elif isinstance(layer, _LEFT_FLOAT) or (
            isinstance(layer, nn.MultiheadAttention) and projection is None
        ):
            text = f"{type(layer).__name__} has no integer kernel here and keeps its float weights"
            if isinstance(layer, RECURRENT) and has_plain_state(layer):
                text += f"; dynamic = [{name!r}] stores them in 8 bits"
            notes.append(Note("TP201", "warning", name, text))
        elif name in kept:
            notes.append(Note("TP204", "note", name, "it keeps its float weights, as asked"))
        elif isinstance(layer, nn.MultiheadAttention) and projection is not None:
            packed = quantize(projection, bits_for(name), scheme=scheme, per_channel=per_channel)
            _put(call, f"{name}.in_proj_weight", projection, packed)
            put_projection(layer, projection)
            weights[f"{name}.in_proj_weight"] = packed
            changes.append(Change(name, "bits", 8 * projection.weight.element_size(), packed.bits))
        if not isinstance(layer, _QUANTIZED) or name in kept:
            continue
        own = layer.weight
        if own in done:  # layers that share a weight go on sharing it
            first, owner = done[own]
            layer.weight = owner.weight
            packed = weights[f"{first}.weight"]
        else:
            packed = quantize(layer, bits_for(name), scheme=scheme, per_channel=per_channel)
            _put(call, name, layer, packed)
            done[own] = name, layer
        weights[f"{name}.weight"] = packed
        changes.append(Change(name, "bits", 8 * layer.weight.element_size(), packed.bits))
    if not weights:
        raise ModelError(call, "there is no Linear or Conv layer left to quantize", "Name another technique")
    for asked, samples, spread in (
        (batch_norm is not None, batch_norm, True),
        (bias_correction, calibration, False),
    ):
        if asked and samples is not None:
            restored = restore_moments(folded, original, weights, samples, spread=spread)
            weights = dict(restored.weights)
            changes += restored.changes
            notes += restored.notes
    notes += what_it_costs(folded, now)
    integers = {
        name: packed
        for name, packed in weights.items()
        if has_integer_kernel(packed) and name.rpartition(".")[0] not in now
    }
    progress("observing ranges", len(modules), len(modules))
    values: Mapping[str, QuantizedValue] = {}
    if integers and calibration is not None and not every:
        proto = to_float_onnx(folded, example_inputs)
        values = calibrate(proto, integers, calibration, ranges, others, percentile, power_of_two)
        raised = with_room(proto.graph, integers, values, power_of_two=power_of_two)
        notes += _replaced(folded, weights, raised)
    if power_of_two:
        notes += [
            Note(
                "TP229",
                "warning",
                None,
                f"the scale of {name} is no power of two: a Clip holds it below 255 steps",
            )
            for name, value in values.items()
            if math.frexp(value.scale)[0] != 0.5
        ]
    plan = QuantPlan(weights, values, rounding(folded, weights, now))
    return Compressed(folded, (*before.changes, *changes), (*before.notes, *notes), before.pruned, plan)


def _replaced(
    model: nn.Module, weights: dict[str, QuantizedWeight], raised: Mapping[str, QuantizedWeight]
) -> list[Note]:
    """Put the weights ``raised`` in the place of those they were, and say so."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    notes = []
    for name, packed in raised.items():
        was = weights[name]
        count = int((packed.scale != was.scale).sum())
        for other in [other for other, found in weights.items() if found is was]:
            weights[other] = packed
            parameters[other].data = dequantize_layer_weights(packed).to(parameters[other])
        text = (
            f"{count} of its scales are coarser than its weights ask for, since a bias beside them needs 32 bits: "
            "what those weights add is lost in it"
        )
        notes.append(Note("TP233", "note", name.rpartition(".")[0], text))
    return notes


def _by_powers_of_two(call: str, quantize: Quantize, batch_norm: Split | None) -> Quantize:
    if quantize is not quantize_layer_weights:
        raise InputError(call, "power_of_two is not for an engine's own quantize", "Leave one of them out")
    if batch_norm is not None:
        raise InputError(
            call, "batch_norm changes the scales, and power_of_two fixes them", "Leave one of them out"
        )
    return partial(quantize_layer_weights, power_of_two=True)


def _put(call: str, name: str, layer: _Layer, packed: QuantizedWeight) -> None:
    weight = dequantize_layer_weights(packed)
    if tuple(weight.shape) != tuple(layer.weight.shape) or not bool(torch.isfinite(weight).all()):
        raise ModelError(
            call,
            f"the weights of {name!r} came back as {tuple(weight.shape)}, not finite {tuple(layer.weight.shape)}",
            "Check the quantize function of the engine",
        )
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), layer.weight.requires_grad)


def _first_names(
    call: str,
    model: nn.Module,
    what: str,
    names: Collection[str],
    kinds: tuple[type[nn.Module], ...] = _NAMED,
) -> frozenset[str]:
    """The layers with these names, by the name under which the network lists each first."""
    layers = {
        name: layer for name, layer in model.named_modules(remove_duplicate=False) if isinstance(layer, kinds)
    }
    for name in names:
        if name not in layers:
            raise InputError(
                call, f"{what}: {name!r} is no layer that could be quantized", f"Choose from {list(layers)}"
            )
    wanted = {id(layers[name]) for name in names}
    return frozenset(name for name, layer in model.named_modules() if id(layer) in wanted)


def _names(model: nn.Module, name: str) -> list[str]:
    """All names of the layer that the network lists first under ``name``."""
    layer = model.get_submodule(name)
    return [other for other, found in model.named_modules(remove_duplicate=False) if found is layer]
