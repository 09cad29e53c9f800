"""Rows of an 8-bit table in ONNX: the integers are looked up, and only the rows that were found become numbers.

Standard operators do it, so that the table is stored once, with one scale a row, also where it is a product's weight.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tinypress.bits import unpack
from tinypress.facts import QuantizedWeight


def looked_up(
    node: onnx.NodeProto, weight: QuantizedWeight, added: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """What stands for ``node``, a Gather of rows from a table of the plan; its constants go into ``added``.

    The table is stored as the plan's integers plus 128, as the weights of products are.
    """
    name, ids, out = node.input[0], node.input[1], node.output[0]
    q = unpack(weight.packed, 8, int(np.prod(weight.shape)), signed=True).numpy().reshape(weight.shape)
    scale = weight.scale.numpy().astype(np.float32).reshape(-1)
    arrays = {
        name: (q.astype(np.int16) + 128).astype(np.uint8),
        f"{name}:s": scale[0] if weight.axis is None else scale,
        "z:128": np.array(128, np.uint8),
        "s:1.0": np.array(1, np.float32),
        "last": np.array([-1], np.int64),
    }
    for key, array in arrays.items():
        added.setdefault(key, numpy_helper.from_array(np.asarray(array), key))
    rows = helper.make_node("Gather", [name, ids], [f"{out}:rows"])
    if weight.axis is None:
        return [rows, helper.make_node("DequantizeLinear", [f"{out}:rows", f"{name}:s", "z:128"], [out])]
    return [
        rows,
        helper.make_node("DequantizeLinear", [f"{out}:rows", "s:1.0", "z:128"], [f"{out}:whole"]),
        helper.make_node("Gather", [f"{name}:s", ids], [f"{out}:scales"]),
        helper.make_node("Unsqueeze", [f"{out}:scales", "last"], [f"{out}:along"]),
        helper.make_node("Mul", [f"{out}:whole", f"{out}:along"], [out]),
    ]


def is_lookup(node: onnx.NodeProto) -> bool:
    """Whether ``node`` takes rows of a table."""
    return node.op_type == "Gather" and not any(a.name == "axis" and a.i for a in node.attribute)
