"""A float graph and a plan as steps in order: each an integer kernel, or an operator that stays float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.helper
from numpy.typing import NDArray
from onnx import numpy_helper

from tinypress.facts import QuantPlan
from tinypress.parameter_names import layers_of_nodes
from tinypress.quantize.fused import (
    PRODUCTS,
    Fused,
    constants_of,
    dynamic_nodes,
    fused_nodes,
    has_integer_kernel,
)
from tinypress.quantize.reference.operators import UnknownOperator
from tinypress.quantize.reference.windows import automatic_padding

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Step:
    """One kernel. ``node`` is its first node; ``fused`` is ``None`` where it computes in float.

    ``layer`` says which layer of the network it is, or which it follows.
    """

    layer: str
    node: onnx.NodeProto
    output: str
    fused: Fused | None = None

    @property
    def kind(self) -> str:
        """``float``, or what the integer kernel computes."""
        return "float" if self.fused is None else self.fused.kind

    @property
    def at_run_time(self) -> bool:
        """Whether it makes its integers itself, of floats, and writes floats."""
        return self.kind in ("dynamic", "recurrent")


@dataclass(frozen=True)
class Program:
    """A network as its runtime computes it. Values named in ``plan.values`` are integers, all others are not."""

    steps: tuple[Step, ...]
    plan: QuantPlan
    constants: Mapping[str, Array]
    inputs: tuple[str, ...]
    output: str
    opsets: Mapping[str, int]


def program_of(proto: onnx.ModelProto, plan: QuantPlan) -> Program:
    """The steps of the float graph ``proto`` quantized by ``plan``.

    A kernel computes in integers where the plan has integers for all that it reads and for what it writes, or where it
    makes them of its input at run time; a
    product other than a convolution may also write floats.

    Raises:
        UnknownOperator: a product of the graph is not the plain one of a Linear or convolution, or pads by itself.
    """
    graph = proto.graph
    _check_padding(graph)
    eight_bits = {name for name, weight in plan.weights.items() if has_integer_kernel(weight)} - plan.dynamic
    kernels = {
        kernel.nodes[0]: kernel
        for kernel in fused_nodes(graph, eight_bits)
        if _in_integers(kernel, graph, plan)
    }
    kernels |= {kernel.nodes[0]: kernel for kernel in dynamic_nodes(graph, plan.dynamic)}
    layers = layers_of_nodes(graph)
    constants = constants_of(graph)
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    covered = {place for kernel in kernels.values() for place in kernel.nodes[1:]}
    # an input that becomes integers is a step of its own
    steps = [
        Step(f"input {name!r}", onnx.helper.make_node("Identity", [name], [name]), name)
        for name in inputs
        if name in plan.values
    ]
    for place, node in enumerate(graph.node):
        if place in covered or node.op_type == "Constant":
            continue
        kernel = kernels.get(place)
        if kernel is not None and kernel.kind in ("product", "dynamic"):
            _check_plain(node)
        output = node.output[0] if kernel is None else kernel.output
        steps.append(Step(layers[place], node, output, kernel))
    return Program(
        tuple(steps),
        plan,
        {name: numpy_helper.to_array(tensor) for name, tensor in constants.items()},
        inputs,
        graph.output[0].name,
        {entry.domain: entry.version for entry in proto.opset_import},
    )


def _check_padding(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if automatic_padding(node).startswith(b"SAME"):
            raise UnknownOperator(
                f"program_of({node.op_type} that writes {node.output[0]!r})",
                "how much it pads depends on the size of its input (auto_pad)",
                "Write the padding as numbers",
            )


def _in_integers(kernel: Fused, graph: onnx.GraphProto, plan: QuantPlan) -> bool:
    if not all(name in plan.values for name in kernel.inputs):
        return False
    if kernel.output in plan.values:
        return True
    return kernel.kind == "product" and graph.node[kernel.nodes[0]].op_type != "Conv"


def _check_plain(node: onnx.NodeProto) -> None:
    """A product by the rows of a weight, with no factors of its own."""
    factors = [a.f for a in node.attribute if a.name in ("alpha", "beta")]
    turned = {a.name: a.i for a in node.attribute if a.name in ("transA", "transB")}
    plain = node.op_type in PRODUCTS and all(factor == 1.0 for factor in factors)
    if not plain or (
        node.op_type == "Gemm" and turned != {"transB": 1} and turned != {"transA": 0, "transB": 1}
    ):
        raise UnknownOperator(
            f"program_of({node.op_type} by {node.input[1]!r})",
            "the product is scaled or its weight is not stored row by row",
            "Export the network with to_float_onnx()",
        )
