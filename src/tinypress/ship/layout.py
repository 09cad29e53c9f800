"""Layers in the shapes that kernels of 8-bit dot products like: the same integers, laid out otherwise."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper

from tinypress.facts import QuantPlan
from tinypress.ship.deep_products import Shapes, multiply_deep
from tinypress.ship.pixel_groups import group_pixels

_SMALL = 1024  # numbers: what shapes may depend on


def laid_out(
    proto: onnx.ModelProto, plan: QuantPlan, isa: Collection[str]
) -> tuple[onnx.ModelProto, QuantPlan]:
    """A copy of the float graph, and its plan, as a file of signed weights has them on a processor with ``isa``."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    plan = group_pixels(changed.graph, plan)
    if "amx_int8" in isa:
        plan = multiply_deep(changed.graph, plan, shapes_of(changed))
    return changed, plan


def shapes_of(proto: onnx.ModelProto) -> Shapes:
    """The shape of every value, 0 for dimensions that are free. Large weights are not copied for it."""
    light = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    light.graph.name = "shapes"
    light.graph.node.extend(proto.graph.node)
    light.graph.input.extend(proto.graph.input)
    light.graph.output.extend(proto.graph.output)
    for tensor in proto.graph.initializer:
        if len(tensor.dims) < 2 and sum(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    inferred = onnx.shape_inference.infer_shapes(light).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
