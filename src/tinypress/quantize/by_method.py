"""The weights of one layer by each of the methods that look at a layer alone, or at what it is fed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import DataError
from tinypress.facts import Note, QuantizedWeight
from tinypress.quantize.adaround import adaround_rows
from tinypress.quantize.awq import awq_rows
from tinypress.quantize.gptq import gptq_rows
from tinypress.quantize.halves import Half, half_weight
from tinypress.quantize.hqq import half_quadratic
from tinypress.quantize.inputs import Inputs, Layer, observe, paired_rows
from tinypress.quantize.layer import packed_weight, quantize_weight, weight_of
from tinypress.quantize.mse import least_squared_error
from tinypress.quantize.rows import Fit, Grid, whole_range
from tinypress.quantize.shared import Choice
from tinypress.task import Split

Method = Literal["nearest", "mse", "hqq", "gptq", "awq", "adaround", "blocks"]
NEEDS_SAMPLES = ("gptq", "awq", "adaround", "blocks")
_FITS: dict[str, Fit] = {"nearest": whole_range, "mse": least_squared_error, "hqq": half_quadratic}
_PLACES = 4096  # that adaround looks at in each layer


@dataclass(frozen=True)
class How:
    method: Method
    grid: Grid
    act_order: bool


def quantized_layer(
    call: str,
    network: nn.Module,
    original: nn.Module,
    choice: Choice,
    how: How | Half,
    samples: Split | None,
) -> tuple[QuantizedWeight, Note | None]:
    """The integers of one weight, and a note where the method could not be used on it."""
    weight = weight_of(f"{call}, layer {choice.names[0]!r}", choice.layers[0])
    named = f"{call}, layer {choice.names[0]!r}"
    if not isinstance(how, How):
        return half_weight(named, weight, how), None
    if how.method not in NEEDS_SAMPLES:
        return quantize_weight(named, weight, 0, how.grid, _FITS[how.method]), None
    layers = [layer for layer in choice.layers if isinstance(layer, Layer)]
    assert samples is not None
    if how.method == "blocks":
        text = (
            "blocks learns weights that one layer multiplies by, and this one is shared or looked up: "
            "its ranges are those of least squared error"
        )
        packed = quantize_weight(named, weight, 0, how.grid, least_squared_error)
        return packed, Note("TP211", "note", choice.names[0], text)
    if how.method == "adaround" and layers:
        return _adaround(named, weight, (original, network), choice.names[0], how.grid, samples)
    seen = observe(network, layers, samples) if layers else None
    reason = None
    if not layers:
        reason = f"{how.method} has nothing to weigh in an embedding, which looks its rows up"
    elif seen is None:
        reason = "the calibration samples never reach it as a layer"
    elif not bool(torch.isfinite(seen.hessian_JKK).all()):
        raise DataError(
            named, "its inputs became NaN or infinite", "Check the calibration samples and the weights"
        )
    elif how.method == "awq" and len(seen.hessian_JKK) > 1:
        reason = "awq has one scale an input channel, and this convolution has groups of them"
    if reason is not None or seen is None:
        fit = whole_range if layers else least_squared_error
        done = (
            "its weights were rounded to nearest" if layers else "its ranges are those of least squared error"
        )
        note = Note("TP211", "note", choice.names[0], f"{reason}: {done}")
        return quantize_weight(named, weight, 0, how.grid, fit), note
    if how.method == "awq":
        rows = weight.reshape(len(weight), -1)
        q, scale, zero, balance = awq_rows(
            named, rows, seen.hessian_JKK[0], seen.mean_abs_I.float(), how.grid
        )
        packed = packed_weight(q, scale, zero, tuple(weight.shape), 0, how.grid)
        return replace(packed, input_scale=balance), None
    return _gptq(named, weight, seen, how), None


def _adaround(
    call: str, weight: Tensor, networks: tuple[nn.Module, nn.Module], name: str, grid: Grid, samples: Split
) -> tuple[QuantizedWeight, Note | None]:
    found = paired_rows(networks, name, samples, _PLACES, seed=0)
    if found is None:
        reason = "the calibration samples never reach it as a layer: its weights were rounded to nearest"
        return quantize_weight(call, weight, 0, grid), Note("TP211", "note", name, reason)
    float_JNK, inputs_JNK = found
    if not bool(torch.isfinite(inputs_JNK).all()):
        raise DataError(
            call, "its inputs became NaN or infinite", "Check the calibration samples and the weights"
        )
    w_JOK = weight.reshape(len(inputs_JNK), -1, weight[0].numel()).float()
    made_JNO = float_JNK @ w_JOK.transpose(1, 2)
    fit = least_squared_error if grid.bits <= 4 else whole_range
    q, scale, zero = adaround_rows(call, w_JOK, made_JNO, inputs_JNK, grid, fit=fit)
    return packed_weight(q, scale, zero, tuple(weight.shape), 0, grid), None


def _gptq(call: str, weight: Tensor, seen: Inputs, how: How) -> QuantizedWeight:
    rows = weight.reshape(len(seen.hessian_JKK), -1, weight[0].numel())
    solved = [
        gptq_rows(call, rows_CK, hessian_KK, how.grid, act_order=how.act_order)
        for rows_CK, hessian_KK in zip(rows, seen.hessian_JKK, strict=True)
    ]
    q, scale, zero = (torch.cat(part) for part in zip(*solved, strict=True))
    return packed_weight(q, scale, zero, tuple(weight.shape), 0, how.grid)
