"""The values that the file rounds are found in the traced graph, where they are used and whatever they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.float_onnx import to_float_onnx
from tinypress.graph import trace
from tinypress.quantize import QuantizedTraining, finish_training, prepare_training
from tinypress.quantize.same_values import same_values
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship.to_onnx import to_onnx
from tinypress.task import Split


class Recurrent(nn.Module):
    """The last output of an LSTM, which its last hidden state equals."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 6, batch_first=True)
        self.middle, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.middle(self.lstm(x)[0][:, -1])))
        return out


class Attention(nn.Module):
    """One block of a transformer: products of activations, sums, layer norm, GELU, and a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.query, self.key = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.value, self.out, self.norm = nn.Linear(16, 16), nn.Linear(16, 16), nn.LayerNorm(16)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        heads = (f(y).unflatten(-1, (2, 8)).transpose(1, 2) for f in (self.query, self.key, self.value))
        query, key, value = heads
        seen = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5, -1) @ value
        y = self.norm(y + self.out(seen.transpose(1, 2).flatten(2)))
        y = y + self.narrow(nn.functional.gelu(self.wide(y)))
        out: Tensor = self.head(y.mean(1))
        return out


def check(model: nn.Module, x: Tensor) -> None:
    """Before any training the simulation is far nearer to the file than the float network is."""
    samples = Split((x,), torch.zeros(len(x)))
    ready = prepare_training(model, samples, (x[:2],), QuantizedTraining())
    shipped = open_onnx(to_onnx(finish_training(ready), (x[:2],)).SerializeToString()).run([x.numpy()])
    with torch.no_grad():
        ours, exact = ready.model.eval()(x).numpy(), model(x).numpy()
    assert np.abs(shipped - ours).mean() < 0.1 * np.abs(shipped - exact).mean()


def test_a_value_is_rounded_where_it_is_used() -> None:
    torch.manual_seed(0)
    check(Recurrent().eval(), torch.randn(40, 5, 3))


@pytest.mark.slow
def test_a_transformer_is_simulated_as_it_ships() -> None:
    torch.manual_seed(0)
    check(Attention().eval(), torch.randn(40, 7, 6))


def test_a_value_that_is_not_there_is_refused() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    one, other = (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval() for _ in range(2))
    traced, proto = trace(one, (x,)), to_float_onnx(other, (x,))
    hidden = next(node.output[0] for node in proto.graph.node if node.op_type == "Relu")
    with pytest.raises(ModelError, match=rf"the value '{hidden}'.*none of the traced graph"):
        same_values("here", traced, one, proto, [hidden], (x,))
    names = same_values("here", trace(other, (x,)), other, proto, [hidden, proto.graph.input[0].name], (x,))
    assert len(set(names.values())) == 2
