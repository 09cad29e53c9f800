"""Runs a whole quantized network step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinypress.errors import InputError
from tinypress.facts import Compressed
from tinypress.float_onnx import to_float_onnx
from tinypress.quantize.bias import bias_integers
from tinypress.quantize.recurrent import stacked
from tinypress.quantize.reference import dynamic, kernels
from tinypress.quantize.reference.operators import run_operator
from tinypress.quantize.reference.program import Array, Program, Step, program_of
from tinypress.quantize.requantize import Requantization, check_requantization, requantize

Watch = Callable[[Step, Array], Array]


def run_reference(
    compressed: Compressed,
    example_inputs: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    requantization: Requantization = "float32",
    *,
    batch_size: int = 64,
) -> Tensor:
    """What a network quantized by ``quantize_model`` answers when its integers are computed exactly.

    Args:
        example_inputs: of one or more samples, to export the network's graph with.
        inputs: one tensor per argument of the network, [N, ...].
        requantization: ``float32`` gives what ONNX Runtime's integer kernels give, ``fixed`` what kernels without
            floats give; layers that stay float (LSTM, layer norm, softmax) are float in both.

    Returns:
        the network's output [N, ...], float32.

    Raises:
        InputError: the network is not quantized with activations, or there is no such requantization.
        ModelError: the network has an operator that the reference does not know.
    """
    call = f"run_reference({type(compressed.model).__name__}, requantization={requantization!r})"
    check_requantization(call, requantization)
    if compressed.plan is None or not (compressed.plan.values or compressed.plan.dynamic):
        raise InputError(
            call,
            "its activations are not quantized",
            "Quantize it with quantize_model(model, calibration, ...) first",
        )
    program = program_of(to_float_onnx(compressed.model, example_inputs), compressed.plan)
    if len(inputs) != len(program.inputs):
        raise InputError(
            call, f"{len(inputs)} inputs for {len(program.inputs)} arguments", "Give one for each"
        )
    answers = []
    for start in range(0, len(inputs[0]), batch_size):
        columns = (column[start : start + batch_size].detach().cpu().numpy() for column in inputs)
        answers.append(evaluate(program, dict(zip(program.inputs, columns, strict=True)), requantization))
    return torch.from_numpy(np.concatenate(answers))


def evaluate(
    program: Program,
    inputs: Mapping[str, Array],
    requantization: Requantization,
    watch: Watch = lambda step, found: found,
) -> Array:
    """The network's output on ``inputs``.

    ``watch`` is given every step with the value it wrote, integers where the plan has integers, and returns the
    value to go on with: the same, or another runtime's.
    """
    values: dict[str, Array] = {**program.constants, **inputs}
    names: list[str]
    found: Sequence[Array]
    for step in program.steps:
        if step.fused is not None and not step.at_run_time:
            values[step.output] = watch(step, _kernel(program, step, values, requantization))
            continue
        if step.at_run_time:
            names, found = _at_run_time(program, step, values)
        elif step.node.op_type == "Identity" and step.output in inputs:
            names, found = [step.output], (inputs[step.output],)
        else:
            given = [_real(program, name, values) if name else None for name in step.node.input]
            names = [name for name in step.node.output if name]
            found = run_operator(step.node, given, program.opsets)
        for name, array in zip(names, found, strict=True):
            values[name] = watch(replace(step, output=name), _stored(program, name, array))
    return _real(program, program.output, values)


def _stored(program: Program, name: str, array: Array) -> Array:
    """The value as it travels on: in integers where the plan has integers."""
    if name not in program.plan.values:
        return array
    return kernels.quantize(np.asarray(array, np.float32), program.plan.values[name])


def _real(program: Program, name: str, values: Mapping[str, Array]) -> Array:
    if name not in program.plan.values:
        return values[name]
    return kernels.dequantize(values[name].astype(np.uint8), program.plan.values[name])


def _at_run_time(
    program: Program, step: Step, values: Mapping[str, Array]
) -> tuple[list[str], Sequence[Array]]:
    """Names and numbers of what a kernel writes that rounds its input itself."""
    fused, node, weights = step.fused, step.node, program.plan.weights
    assert fused is not None
    assert fused.weight is not None
    given: list[Any] = [_real(program, name, values) if name else None for name in node.input]
    if step.kind == "recurrent":
        both = [stacked(weights, name, node.op_type) for name in node.input[1:3]]
        made = dynamic.lstm(node, given, both)
        kept = [place for place, name in enumerate(node.output) if name]
        return [node.output[place] for place in kept], [made[place] for place in kept]
    bias: Any = None if fused.bias is None else program.constants[fused.bias]
    real = dynamic.product(node, given[0], weights[fused.weight], bias)
    return [step.output], [np.clip(real, np.float32(fused.low), np.float32(fused.high))]


def _kernel(
    program: Program, step: Step, values: Mapping[str, Array], requantization: Requantization
) -> Array:
    fused, scales_of = step.fused, program.plan.values
    assert fused is not None
    given = [(values[name].astype(np.uint8), scales_of[name]) for name in fused.inputs]
    if fused.kind == "product":
        return _product(program, step, given[0], requantization)
    output = scales_of[step.output]
    match fused.kind:
        case "sum":
            return kernels.add(given[0], given[1], output, requantization)
        case "multiply":
            return kernels.multiply(given[0], given[1], output, requantization)
        case "concat":
            axis = next(int(a.i) for a in step.node.attribute if a.name == "axis")
            return kernels.concatenate(given, axis, output, requantization)
        case "average":
            return kernels.average(step.node, given[0], output, requantization)
        case "table":
            return kernels.look_up(step.node, given[0], output)
        case _:
            if step.node.op_type == "MaxPool":
                return kernels.maximum(step.node, given[0][0])
            rest = [values[name] if name else None for name in step.node.input[1:]]
            return run_operator(step.node, [given[0][0], *rest], program.opsets)[0]


def _product(program: Program, step: Step, x: kernels.Given, requantization: Requantization) -> Array:
    """A convolution or product with its bias, its Relu or Clip, and the rounding of its output.

    A bias that stands behind a MatMul is added by ONNX Runtime to the real product; all others are 32-bit integers
    in the sum.
    """
    fused = step.fused
    assert fused is not None
    assert fused.weight is not None
    weight = program.plan.weights[fused.weight]
    output = program.plan.values.get(step.output)
    bias = None if fused.bias is None else np.asarray(program.constants[fused.bias], np.float64)
    beside = fused.bias is None or fused.bias in step.node.input or requantization == "fixed"
    whole = bias_integers(bias, x[1], weight)[0] if bias is not None and beside else None
    sums = kernels.product_sums(step.node, x, weight, whole)
    scales = kernels.scales_along(step.node, x[1], weight, sums.ndim)
    if output is not None and beside:
        # the integers of a clamped output begin and end where the clamp does
        return requantize(sums, scales, output, requantization)
    real = sums.astype(np.float32) * scales
    if bias is not None and not beside:
        real = real + bias.astype(np.float32)
    if output is not None:
        return kernels.quantize(real, output)
    clamped: Array = np.clip(real, np.float32(fused.low), np.float32(fused.high))
    return clamped
