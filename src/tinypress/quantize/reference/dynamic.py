"""Layers that round their input at run time, as ONNX Runtime computes them: integers times integers, results in float.

    scale = (max(x, 0) - min(x, 0)) / 255,   z = round(-min(x, 0) / scale),   q = clamp(round(x / scale) + z, 0, 255)

over all that one call is given (ONNX, DynamicQuantizeLinear), so that a sample's answer depends, by less than a step,
on those beside it. A product is then (q - z) w in 32 bits times both scales in float32, plus the bias. An LSTM
(com.microsoft DynamicQuantizeLSTM) rounds its whole input once and its state at every step; the cell stays float.

Axes: T steps, N samples, D directions, G gates times hidden units, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from tinypress.facts import QuantizedValue, QuantizedWeight
from tinypress.quantize.reference.kernels import Given, centred, product_sums, scales_along
from tinypress.quantize.reference.operators import UnknownOperator
from tinypress.quantize.reference.windows import attributes

Reals = NDArray[np.float32]
_LSTM = frozenset({"hidden_size", "direction", "activations", "layout", "input_forget"})


def quantize_now(x: Reals) -> Given:
    """The integers of ``x`` with the scale and zero point that its own range gives."""
    low, high = (np.float32(end(x, initial=0.0)) for end in (np.min, np.max))
    scale = (high - low) / np.float32(255) if high > low else np.float32(1)
    if scale == 0:  # a range below the smallest step that a float can hold: all of it is zero
        return np.zeros(x.shape, np.uint8), QuantizedValue(0.0, 0)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    q = np.clip(np.rint(x / scale) + np.float32(zero), 0, 255).astype(np.uint8)
    return q, QuantizedValue(float(scale), zero)


def product(node: onnx.NodeProto, x: Reals, weight: QuantizedWeight, bias: Reals | None) -> Reals:
    """A product or convolution with the weight's rows: [N, O, *] or [N, ..., O]."""
    given = quantize_now(x)
    sums = product_sums(node, given, weight, None)
    real: Reals = sums.astype(np.float32) * scales_along(node, given[1], weight, sums.ndim)
    if bias is None:
        return real
    along = (1, -1, *[1] * (real.ndim - 2)) if node.op_type == "Conv" else (-1,)
    return real + bias.astype(np.float32).reshape(along)


def lstm(
    node: onnx.NodeProto,
    inputs: Sequence[Reals | None],
    weights: Sequence[tuple[NDArray[np.int64], Reals]],
) -> tuple[Reals, Reals, Reals]:
    """All states [T, D, N, H], the last [D, N, H] and the last cell [D, N, H].

    Args:
        inputs: those of an ONNX LSTM; its two weights are not looked at.
        weights: integers [D, G, I] and scales [D, G] of the inputs' and of the state's.

    Raises:
        UnknownOperator: it has peepholes, lengths for single samples, or other functions than the usual ones.
    """
    _check_plain(node, inputs)
    x = inputs[0]
    assert x is not None
    direction = attributes(node).get("direction", b"forward")
    (w_DGI, scale_DG), (r_DGH, scale_r_DG) = weights
    hidden = r_DGH.shape[2]
    (q, of_x), every = quantize_now(x), []
    h_DNH, c_DNH = (
        np.zeros((len(w_DGI), x.shape[1], hidden), np.float32) if given is None else given.astype(np.float32).copy()
        for given in _optional(inputs, 5, 6)
    )  # fmt: skip
    bias = _optional(inputs, 3)[0]
    for way in range(len(w_DGI)):
        ahead = centred(q, of_x) @ w_DGI[way].T
        gates_TNG = ahead.astype(np.float32) * (np.float32(of_x.scale) * scale_DG[way])
        backwards = direction == b"reverse" or way == 1
        h, c, states = h_DNH[way], c_DNH[way], np.zeros((*x.shape[:2], hidden), np.float32)
        added = np.float32(0) if bias is None else bias[way][: 4 * hidden] + bias[way][4 * hidden :]
        for step in range(len(x))[:: -1 if backwards else 1]:
            q_h, of_h = quantize_now(h)
            back = (centred(q_h, of_h) @ r_DGH[way].T).astype(np.float32)
            total = gates_TNG[step] + back * (np.float32(of_h.scale) * scale_r_DG[way]) + added
            given, out, forget, cell = np.split(total, 4, axis=-1)  # the order of ONNX
            c = _sigmoid(forget) * c + _sigmoid(given) * np.tanh(cell)
            h = _sigmoid(out) * np.tanh(c)
            states[step] = h
        h_DNH[way], c_DNH[way] = h, c
        every.append(states)
    return np.stack(every, 1), h_DNH, c_DNH


def _sigmoid(x: Reals) -> Reals:
    with np.errstate(over="ignore"):
        made: Reals = (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)
    return made


def _optional(inputs: Sequence[Reals | None], *places: int) -> list[Reals | None]:
    return [inputs[place] if place < len(inputs) else None for place in places]


def _check_plain(node: onnx.NodeProto, inputs: Sequence[Reals | None]) -> None:
    given = attributes(node)
    usual = [b"Sigmoid", b"Tanh", b"Tanh"]
    functions = given.get("activations", usual)
    plain = set(given) <= _LSTM and not given.get("layout") and not given.get("input_forget")
    plain = plain and isinstance(functions, list) and functions in (usual, usual * 2)
    if not plain or any(each is not None for each in _optional(inputs, 4, 7)):
        raise UnknownOperator(
            "lstm()", "it has peepholes, lengths or functions of its own", "Export it with to_float_onnx()"
        )
