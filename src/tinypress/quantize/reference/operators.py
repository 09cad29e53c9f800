"""Operators that stay float, and those that move numbers: the ONNX standard's own reference implementations.

A few of them would take minutes there, and are PyTorch's instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import torch
from numpy.typing import NDArray

from tinypress.errors import ModelError
from tinypress.quantize.reference.windows import attributes, whole_numbers

Array = NDArray[np.generic]


class UnknownOperator(ModelError):
    """A network that the reference cannot run."""


def run_operator(
    node: onnx.NodeProto, inputs: Sequence[Array | None], opsets: Mapping[str, int]
) -> Sequence[Array]:
    """The outputs of ``node``; an input that is left out is ``None``.

    Raises:
        UnknownOperator: there is no implementation, or it refuses these inputs.
    """
    try:
        faster = _FASTER.get(node.op_type)
        with np.errstate(all="ignore"), torch.no_grad():
            if faster is not None:
                return (faster(node, *inputs),)
            evaluator: Any = onnx.reference.ReferenceEvaluator(node, opsets=dict(opsets))
            given = {name: array for name, array in zip(node.input, inputs, strict=True) if name}
            outputs: Sequence[Array] = evaluator.run([name for name in node.output if name], given)
            return outputs
    except Exception as error:
        raise UnknownOperator(
            f"run_operator({node.op_type})",
            f"the reference cannot compute it ({type(error).__name__}: {error})",
            "Replace this operator, or do without the comparison",
        ) from error


def _convolution(node: onnx.NodeProto, x: Any, weight: Any, bias: Any = None) -> Array:
    given = attributes(node)
    count = weight.ndim - 2
    ones = [1] * count
    pads = whole_numbers(given.get("pads"), [0] * 2 * count)
    pairs = [pad for place in reversed(range(count)) for pad in (pads[place], pads[count + place])]
    convolve: Any = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[
        count - 1
    ]
    found: Array = convolve(
        torch.nn.functional.pad(torch.from_numpy(x), pairs),
        torch.tensor(weight),
        None if bias is None else torch.tensor(bias),
        whole_numbers(given.get("strides"), ones),
        0,
        whole_numbers(given.get("dilations"), ones),
        given.get("group", 1),
    ).numpy()
    return found


def _gelu(node: onnx.NodeProto, x: Any) -> Array:
    how = attributes(node).get("approximate", b"none")
    name = how.decode() if isinstance(how, bytes) else str(how)
    found: Array = torch.nn.functional.gelu(torch.from_numpy(x), approximate=name).numpy()
    return found


def _erf(node: onnx.NodeProto, x: Any) -> Array:
    found: Array = torch.special.erf(torch.from_numpy(x)).numpy()
    return found


_FASTER: dict[str, Callable[..., Array]] = {"Conv": _convolution, "Gelu": _gelu, "Erf": _erf}
