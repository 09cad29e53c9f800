"""The shapes of an ONNX graph's values, without copies of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx.shape_inference
from onnx import helper

Shapes = Mapping[str, Sequence[int]]
_SMALL = 1024  # numbers of a tensor that another's shape may depend on


def shapes_of(proto: onnx.ModelProto) -> Shapes:
    """For each value and weight whose rank is known its dimensions, 0 for those that are free.

    Nothing is known of a graph that contradicts itself.
    """
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
    try:
        inferred = onnx.shape_inference.infer_shapes(light).graph
    except onnx.shape_inference.InferenceError:
        return {}
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
