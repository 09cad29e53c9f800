"""The weights of a whole network to few bits, and nothing else: activations stay float.

One loop for every method; what a method does with the weights of one layer stands in a file of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError, ModelError
from tinypress.facts import Change, Compressed, Note, QuantizedWeight, QuantPlan
from tinypress.graph import batch_norm_pairs, trace
from tinypress.layers import copy_model
from tinypress.quantize.absorb import absorb_batch_norms
from tinypress.quantize.affine import Scheme
from tinypress.quantize.block_rows import device_of
from tinypress.quantize.by_layer import Bits, bits_of, check_bits, kept_float, shown
from tinypress.quantize.by_method import NEEDS_SAMPLES, How, Method, quantized_layer
from tinypress.quantize.calibration import judge_calibration
from tinypress.quantize.equalize import equalize_layers
from tinypress.quantize.fake_weight import FakeWeight
from tinypress.quantize.fold import fold_batch_norms
from tinypress.quantize.halves import HALVES, Half
from tinypress.quantize.inputs import Layer, layers_in_order
from tinypress.quantize.layer import dequantize_layer_weights, weight_of
from tinypress.quantize.learn_block import Reconstruction, check_reconstruction
from tinypress.quantize.moments import restore_moments
from tinypress.quantize.reconstruct import reconstruct_blocks
from tinypress.quantize.rows import Grid
from tinypress.quantize.shared import Choice, choose
from tinypress.task import Split
from tinypress.train.batchnorm import reestimate_batch_norm
from tinypress.train.processes import Processes
from tinypress.train.progress import Progress, silent


def quantize_weights(
    model: nn.Module | Compressed,
    bits: Bits = 4,
    *,
    group_size: int | None = 32,
    method: Method = "nearest",
    scheme: Scheme | Half = "symmetric",
    power_of_two: bool = False,
    act_order: bool = False,
    calibration: Split | None = None,
    example_inputs: tuple[Tensor, ...] | None = None,
    embeddings: Collection[str] = (),
    keep: Collection[str] = (),
    batch_norm: Split | None = None,
    equalize: bool = False,
    bias_correction: bool = False,
    reference: Split | None = None,
    reconstruction: Reconstruction | None = None,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> Compressed:
    """Quantize the weights of every Linear and convolution, and of the embeddings that are named.

    Convolutions are matrices with one row an output channel. The network that comes back holds the dequantized
    weights, the plan their integers. What was exactly zero stays so; tensors that are one stay one.

    Args:
        bits: 2 to 8, or those of each layer by its name (one that is not named stays float); or 16 with the scheme
            ``float16`` or ``bfloat16``, which have no scale and no groups.
        group_size: so many neighbouring weights of an output channel share a scale; ``None`` for all of them.
        method: ``nearest`` rounds; ``mse`` and ``hqq`` look for a better range in the weights alone; ``gptq``,
            ``awq`` and ``adaround`` look at what ``calibration`` feeds to each layer, after the layers before it were
            quantized. With ``blocks`` the weights, scales and biases of each block of layers learn to make what the
            float block makes (``reconstruct.py``): minutes rather than seconds, for 4 bits and fewer.
        power_of_two: scales are powers of two.
        act_order: ``gptq`` begins with the inputs that are largest.
        calibration: samples like those the network will see.
        example_inputs: with them (or ``calibration``) batch norm is folded into the layer before it.
        embeddings: names of the Embedding layers to quantize as well; a Linear whose weight is that of an embedding
            is quantized with it or not at all.
        keep: names of layers that keep their float weights.
        batch_norm: samples on which batch norm's moments are estimated again behind the quantized weights, before
            the scales absorb it (``absorb.py``). It needs no labels; at 4 bits and fewer it wins much back.
        equalize: share out the channels' ranges among neighbouring layers first (``equalize_layers``).
        bias_correction: give every channel the mean back that rounding its weights moved.
        reference: data that the network was trained on, by which the calibration samples are judged.
        reconstruction: how ``blocks`` learns.
        processes: it learns on their device, where that is not the network's; every process does all of it.

    Raises:
        InputError: a setting out of range, a name that is no such layer, or a network that is quantized already.
        ModelError: there is nothing to quantize, a weight holds NaN, infinity or more than 1e38, or a block's error
            became NaN while it learnt.
        DataError: the method needs calibration samples and there are none.
    """
    before = model if isinstance(model, Compressed) else Compressed(model)
    call = f"quantize_weights({type(before.model).__name__}, bits={shown(bits)}, method={method!r})"
    half = scheme in HALVES
    if not half:
        check_bits(call, bits, scheme, group_size)
    elif bits != 16 or method != "nearest":
        raise InputError(
            call, f"{scheme} has {bits!r} bits and method {method!r}", "Give 16 bits and method='nearest'"
        )
    if method not in get_args(Method):
        raise InputError(call, f"method is {method!r}", f"Use one of {list(get_args(Method))}")
    if before.plan is not None:
        raise InputError(call, "the network is quantized already", "Quantize once, as the last step")
    if method in NEEDS_SAMPLES and calibration is None:
        raise DataError(call, f"{method!r} looks at the inputs of each layer", "Give calibration samples")
    if batch_norm is not None and (half or power_of_two):
        raise InputError(
            call,
            "batch_norm changes the scales, and these are fixed",
            "Leave out batch_norm, or the fixed scales",
        )
    _check_blocks(call, method, reconstruction, fixed=power_of_two, batch_norm=batch_norm is not None)
    if bias_correction and calibration is None:
        raise DataError(call, "what rounding moved is seen on samples only", "Give calibration samples")
    used = calibration if method in NEEDS_SAMPLES or bias_correction else None
    judged = judge_calibration(call, before, used, reference) if used is not None else ()
    given = example_inputs
    for samples in (calibration, batch_norm):
        if given is None and samples is not None:
            given = tuple(column[:2] for column in samples.inputs)
    pairs: Sequence[tuple[str, str]] = ()
    unfolded: list[Note] = []
    if equalize:
        if given is None:
            raise DataError(call, "neighbouring layers are found in a traced network", "Give example_inputs")
        before = equalize_layers(before, given, calibration)
        network = before.model
    elif batch_norm is not None and given is not None:
        network = copy_model(before.model).eval()
        pairs = batch_norm_pairs(trace(network, given))
    else:
        network, unfolded = folded(before.model, given)
    compared = equalize or bias_correction or method in ("adaround", "blocks")
    original = fold_batch_norms(network, pairs) if compared else network
    kept = kept_float(call, network, bits, embeddings, keep)
    choices, left = choose(call, network, frozenset(embeddings), kept)
    weights: dict[str, QuantizedWeight] = {}
    learnt: dict[str, FakeWeight] = {}
    changes, notes = [], [*judged, *unfolded, *left]
    ordered = _in_order(network, choices, calibration)
    for done, choice in enumerate(ordered):
        progress("quantizing the weights", done, len(ordered))
        was = 8 * choice.layers[0].weight.element_size()
        how: How | Half = (
            scheme
            if scheme == "float16" or scheme == "bfloat16"
            else How(method, Grid(bits_of(choice.names, bits), scheme, group_size, power_of_two), act_order)
        )
        if isinstance(how, How) and method == "blocks" and _alone(choice):
            learnt[choice.names[0]] = _steps(call, choice, how.grid)
            changes.append(Change(choice.names[0], "bits", was, how.grid.bits))
            continue
        packed, note = quantized_layer(call, network, original, choice, how, calibration)
        if note is not None:
            notes.append(note)
        _put(choice, packed)
        weights.update(dict.fromkeys((f"{name}.weight" for name in choice.names), packed))
        changes.append(Change(choice.names[0], "bits", was, packed.bits))
    if learnt and calibration is not None:
        home = device_of(network)
        for part in (network, original, *learnt.values()):
            part.to(home if processes is None else processes.device)
        rebuilt = reconstruct_blocks(
            call,
            network,
            original,
            learnt,
            calibration,
            reconstruction or Reconstruction(),
            pruned=before.pruned,
            progress=progress,
        )
        for part in (network, original):
            part.to(home)
        weights.update({f"{name}.weight": packed for name, packed in rebuilt.weights.items()})
        changes += rebuilt.changes
        notes += rebuilt.notes
    if batch_norm is not None and not equalize:
        again = reestimate_batch_norm(network, batch_norm)
        changes += again.changes
        notes += again.notes
        network, weights = absorb_batch_norms(call, again.model, pairs, weights)
    for wanted, samples, spread in ((equalize, batch_norm, True), (bias_correction, calibration, False)):
        if wanted and samples is not None:
            restored = restore_moments(network, original, weights, samples, spread=spread)
            weights = dict(restored.weights)
            changes += restored.changes
            notes += restored.notes
    return Compressed(
        network,
        (*before.changes, *changes),
        (*before.notes, *notes),
        before.pruned,
        QuantPlan({name: weights[name] for name in sorted(weights)}),
    )


def folded(model: nn.Module, inputs: tuple[Tensor, ...] | None) -> tuple[nn.Module, list[Note]]:
    """A copy of ``model`` with batch norm folded, where there is any and ``inputs`` to trace it; else a note."""
    if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()):
        return copy_model(model).eval(), []
    if inputs is None:
        text = "batch norm was not folded into the layers before it, because no example inputs were given"
        return copy_model(model).eval(), [Note("TP212", "warning", None, text)]
    return fold_batch_norms(model, batch_norm_pairs(trace(model, inputs))), []


def _in_order(network: nn.Module, choices: Sequence[Choice], samples: Split | None) -> list[Choice]:
    """As the samples meet them; what they never meet comes last."""
    if samples is None:
        return list(choices)
    owners = {layer: choice for choice in choices for layer in choice.layers}
    met = layers_in_order(network, tuple(column[:2] for column in samples.inputs), list(owners))
    return list(dict.fromkeys([*(owners[layer] for layer in met if layer in owners), *choices]))


def _check_blocks(
    call: str, method: Method, how: Reconstruction | None, *, fixed: bool, batch_norm: bool
) -> None:
    """Refuse what ``blocks`` cannot have, and settings of it for another method."""
    if method != "blocks":
        if how is not None:
            raise InputError(call, "reconstruction is how 'blocks' learns", "Give method='blocks'")
        return
    check_reconstruction(call, how or Reconstruction())
    if fixed:
        raise InputError(call, "'blocks' learns the scales", "Leave out power_of_two")
    if batch_norm:
        raise InputError(
            call, "'blocks' folds batch norm and learns what its moments would change", "Leave out batch_norm"
        )


def _alone(choice: Choice) -> bool:
    """Whether a weight is that of one layer, which multiplies by it."""
    return len(choice.names) == 1 and isinstance(choice.layers[0], Layer)


def _steps(call: str, choice: Choice, grid: Grid) -> FakeWeight:
    named, name = f"{call}, layer {choice.names[0]!r}", choice.names[0]
    return FakeWeight(named, (f"{name}.weight",), weight_of(named, choice.layers[0]), grid, learned=True)


def _put(choice: Choice, packed: QuantizedWeight) -> None:
    parameter = choice.layers[0].weight
    assert isinstance(parameter, Tensor)
    real = dequantize_layer_weights(packed)
    if not bool(torch.isfinite(real).all()):
        raise ModelError(
            f"quantize_weights, layer {choice.names[0]!r}", "its weights overflowed", "Use more bits"
        )
    parameter.data = real.to(parameter.dtype).to(parameter.device)  # whoever shares it goes on sharing it
