"""A layer alone: what it is and where it stands in a network, and the ONNX file of it at any widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.float_onnx import OPSET
from tinypress.graph import check_example, forward_eval
from tinypress.layers import copy_model, stock_path

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Spec:
    """A layer without its widths, and where it stands: what is the same for all that are timed together.

    ``shape`` is that of its input after the channels, or for a linear layer before them, without the batch.
    """

    kind: str
    inputs: int
    outputs: int
    shape: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = True
    calls: int = 1

    @property
    def values(self) -> int:
        """Numbers that it puts out for each output channel."""
        sizes = self.shape
        if self.kernel:
            parts = zip(self.shape, self.kernel, self.stride, self.padding, self.dilation, strict=True)
            sizes = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in parts)
        return int(np.prod(sizes, initial=1))


def layer_specs(call: str, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> dict[str, Spec]:
    """The layers of exactly torch's classes that run on the example, in module order, by their paths in the network
    before any list of it was shortened.

    Raises:
        ModelError: the network does not run, or has no such layer.
    """
    copied = copy_model(model)
    check_example(call, copied, example_inputs)
    found: dict[str, Spec] = {}
    calls: dict[str, int] = {}

    def hook(path: str) -> Callable[..., None]:
        def seen(
            layer: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
        ) -> None:
            calls[path] = calls.get(path, 0) + 1
            found[path] = _spec(layer, args[0] if args else named["input"], calls[path])

        return seen

    for path, layer in copied.named_modules():
        if type(layer) is nn.Linear or type(layer) in _CONVOLUTIONS:
            layer.register_forward_hook(hook(stock_path(copied, path)), with_kwargs=True)
    forward_eval(copied, tuple(example_inputs))
    names = [stock_path(copied, path) for path, _ in copied.named_modules()]
    found = {name: found[name] for name in names if name in found}
    if not found:
        raise ModelError(call, "no linear layer or convolution runs in it", "Give another network")
    return found


def _spec(layer: nn.Module, given: Tensor, calls: int) -> Spec:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return Spec(
            "Linear", layer.in_features, layer.out_features, tuple(given.shape[1:-1]), bias=bias, calls=calls
        )
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    dims = len(layer.kernel_size)
    if layer.padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    else:
        padding = (0,) * dims if isinstance(layer.padding, str) else tuple(layer.padding)
    return Spec(
        type(layer).__name__,
        layer.in_channels,
        layer.out_channels,
        tuple(given.shape[-dims:]),
        tuple(layer.kernel_size),
        tuple(layer.stride),
        padding,
        tuple(layer.dilation),
        layer.groups,
        bias,
        calls,
    )


def graph_bytes(
    node: onnx.NodeProto | Sequence[onnx.NodeProto], shape: Sequence[int], stored: Sequence[onnx.TensorProto]
) -> bytes:
    nodes = [node] if isinstance(node, onnx.NodeProto) else list(node)
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(stored),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def layer_onnx(spec: Spec, inputs: int, outputs: int) -> tuple[bytes, tuple[int, ...]]:
    """The ONNX file of one layer at these widths, with random weights, and the shape of its input."""
    random = np.random.default_rng(0)

    def stored(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32), name)

    if not spec.kernel:
        shape = (1, *spec.shape, inputs)
        tensors = [stored("w", inputs, outputs)]
        if len(shape) == 2:
            names = ["x", "w", "b"] if spec.bias else ["x", "w"]
            tensors += [stored("b", outputs)] if spec.bias else []
            return graph_bytes(helper.make_node("Gemm", names, ["y"]), shape, tensors), shape
        nodes = [helper.make_node("MatMul", ["x", "w"], ["p" if spec.bias else "y"])]
        if spec.bias:
            nodes.append(helper.make_node("Add", ["p", "b"], ["y"]))
            tensors.append(stored("b", outputs))
        return graph_bytes(nodes, shape, tensors), shape
    groups = _groups(spec, inputs)
    shape = (1, inputs, *spec.shape)
    tensors = [stored("w", outputs, inputs // groups, *spec.kernel)]
    tensors += [stored("b", outputs)] if spec.bias else []
    node = helper.make_node(
        "Conv",
        [x.name for x in (helper.make_tensor_value_info("x", TensorProto.FLOAT, None), *tensors)],
        ["y"],
        kernel_shape=spec.kernel,
        strides=spec.stride,
        pads=spec.padding * 2,
        dilations=spec.dilation,
        group=groups,
    )
    return graph_bytes(node, shape, tensors), shape


def _groups(spec: Spec, inputs: int) -> int:
    """A grouped convolution keeps the channels of a group and has fewer groups."""
    return 1 if spec.groups == 1 else max(inputs * spec.groups // spec.inputs, 1)
