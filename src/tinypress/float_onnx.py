"""The float network as an ONNX graph: what calibration observes, what every ONNX file is written from.

PyTorch's own exporter writes it (batch norm after a convolution is folded there). Names of weights stay those
of the module's parameters; everything that only helps a debugger is left out, because it can triple a small file.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.global_pooling import with_global_pooling
from tinypress.parameter_names import with_parameter_names

OPSET = 20


def to_float_onnx(
    model: nn.Module, example_inputs: tuple[Tensor, ...], *, opset: int = OPSET, free_length: bool = False
) -> onnx.ModelProto:
    """Export ``model`` with a free batch dimension (the first of every input and of the output).

    Args:
        free_length: the second dimension of every input is free as well, one length for all.

    Raises:
        ModelError: the network cannot be exported, or only for one batch size or length.
    """
    call = f"to_float_onnx({type(model).__name__}, inputs {[tuple(x.shape) for x in example_inputs]})"
    model = copy.deepcopy(model).eval()
    # an example batch of one would be frozen into the file
    inputs = tuple(x.repeat(2, *[1] * (x.dim() - 1)) if len(x) == 1 else x for x in example_inputs)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    free = tuple({0: batch, 1: length} if free_length else {0: torch.export.Dim.DYNAMIC} for _ in inputs)
    try:
        with _quiet(), _operators_read_once():
            program = torch.onnx.export(
                model, inputs, dynamo=True, dynamic_shapes=free, opset_version=opset, verbose=False
            )
        assert program is not None
        proto: onnx.ModelProto = program.model_proto
    except Exception as error:
        reason = _reason(error)
        raise ModelError(
            call,
            f"it cannot be exported ({reason})",
            "Replace control flow that depends on the data; torch.export.export(model, inputs) shows where",
        ) from error
    for value in (*proto.graph.input, *proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or dims[0].HasField("dim_value"):
            raise ModelError(
                call,
                f"the batch dimension of {value.name!r} is frozen",
                "Remove the literal batch size from forward()",
            )
    for value in proto.graph.input if free_length else ():
        dims = value.type.tensor_type.shape.dim
        if len(dims) < 2 or dims[1].HasField("dim_value"):
            raise ModelError(
                call,
                f"the length of {value.name!r} is frozen",
                "Leave free_length off, or let forward() take inputs of any length",
            )
    if len(proto.graph.output) != 1:
        raise ModelError(
            call, f"forward() returns {len(proto.graph.output)} tensors", "Wrap it so that it returns one"
        )
    return with_parameter_names(_stripped(with_global_pooling(proto)), model)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom; the exporter's own says only at which step."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no reason given'}"


def _stripped(proto: onnx.ModelProto) -> onnx.ModelProto:
    graph = proto.graph
    for part in (
        proto,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *graph.value_info,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("name")
    graph.ClearField("value_info")
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    proto.producer_name, proto.producer_version = "tinypress", ""
    proto.ClearField("functions")
    return proto


@contextlib.contextmanager
def _operators_read_once() -> Iterator[None]:
    """In every export the source of all 500 operators that the exporter knows is parsed again, for a third to a half
    of the time; here once in a process."""
    try:
        exporter: Any = importlib.import_module("torch.onnx._internal.exporter._registration").onnxscript_apis
        read = exporter.get_torchlib_ops
    except (ImportError, AttributeError):  # no part of what torch promises
        yield
        return
    exporter.get_torchlib_ops = lambda: list(_operators(read))
    try:
        yield
    finally:
        exporter.get_torchlib_ops = read


@functools.cache
def _operators(read: Callable[[], list[object]]) -> tuple[object, ...]:
    return tuple(read())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about optional packages and deprecations that are not the caller's."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),  # it prints half a graph on failure
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
