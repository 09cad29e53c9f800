"""Which kernels are worth their integers: those between products, and none whose result only floats read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tinypress.float_onnx import to_float_onnx
from tinypress.quantize import quantize_model
from tinypress.quantize.fused import needed_nodes
from tinypress.quantize.values import observed_names
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import to_onnx
from tinypress.task import Split


def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """From x and z [n, 2] to y, with the weights a.w and b.w."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "z", "y")]
    weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32), name) for name in ("a.w", "b.w")]
    return helper.make_graph(list(nodes), "g", ends[:2], ends[2:], weights)


def node(kind: str, inputs: str, output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **({"transB": 1} if kind == "Gemm" else {}))


FIRST, LAST = node("Gemm", "x a.w", "a"), node("Gemm", "f b.w", "y")


@pytest.mark.parametrize(
    ("between", "observed"),
    [
        # scores with a mask, a residual sum before a norm
        ([node("Add", "a z", "s"), node("Softmax", "s", "f")], ("x", "f")),
        ([node("Concat", "a z", "s"), node("Softmax", "s", "f")], ("x", "f")),
        ([node("Transpose", "a", "t"), node("Softmax", "t", "f")], ("x", "f")),
        ([node("Softmax", "a", "f")], ("x", "f")),
        # read by the product itself, by way of a clamp, or moved to it
        ([node("Add", "a z", "f")], ("x", "a", "z", "f")),
        ([node("Add", "a z", "s"), node("Relu", "s", "f")], ("x", "a", "z", "s", "f")),
        ([node("Add", "a z", "s"), node("Transpose", "s", "f")], ("x", "a", "z", "s")),
        ([node("Relu", "a", "f")], ("x", "f")),
        # one sum needs the other
        ([node("Add", "a z", "s"), node("Add", "s z", "f")], ("x", "a", "z", "s", "f")),
    ],
)
def test_what_only_floats_read_stays_float(between: list[onnx.NodeProto], observed: tuple[str, ...]) -> None:
    made = graph(FIRST, *between, LAST)
    assert observed_names(made, ("a.w", "b.w")) == observed
    first = needed_nodes(made, ("a.w", "b.w"))[0]
    assert first.rounds == (first.output in observed)


def test_a_value_for_floats_and_integers_is_rounded_once_for_both() -> None:
    between = node("Softmax", "a", "s"), node("Add", "a a", "f")
    assert observed_names(graph(FIRST, *between, LAST), ("a.w", "b.w")) == ("x", "a", "f")


def test_a_convolution_rounds_what_it_writes() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 2, 3))
    proto = to_float_onnx(model, (torch.randn(2, 2, 9),))
    assert [kernel.rounds for kernel in needed_nodes(proto.graph, ("0.weight", "2.weight"))] == [True, True]


class Masked(nn.Module):
    """Attention in which every sample has padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.three, self.out = nn.Linear(4, 16), nn.Linear(16, 48), nn.Linear(16, 3)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.words(x)
        q, k, v = self.three(hidden).chunk(3, dim=-1)
        padding = (x[:, None, :, 0] > 1.0) * torch.finfo(torch.float32).min
        seen = torch.softmax(q @ k.transpose(1, 2) / 4 + padding, dim=-1) @ v
        logits: Tensor = self.out(self.norm(hidden + seen).mean(1))
        return logits


def test_a_mask_of_the_least_float_costs_the_scores_nothing() -> None:
    torch.manual_seed(0)
    model, x = Masked().eval(), torch.randn(200, 6, 4)
    with torch.no_grad():
        due = model(x)
    small = quantize_model(model, Split((x,), torch.zeros(200)), (x[:2],))
    assert small.plan is not None
    assert max(value.scale for value in small.plan.values.values()) < 1
    found = torch.from_numpy(open_onnx(to_onnx(small, (x[:2],)).SerializeToString()).run([x.numpy()]))
    assert float((found - due).abs().max()) < 0.05 * float(due.abs().max())
