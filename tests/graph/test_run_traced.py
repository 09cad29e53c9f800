"""A traced network goes through its operators again: same output, other batch, other tensors, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.graph import trace
from tinypress.graph.run import check_can_run, compute, execute, on_device


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3, padding=1)
        self.head = nn.Linear(12, 2)
        self.register_buffer("shift", torch.ones(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)) + self.shift
        return self.head(y.flatten(1)) * torch.full((x.shape[0], 1), 2.0)


def call(node: Any, values: Any) -> Any:
    return compute(node, values) if node.kind == "call" else values[node.name]


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def test_another_batch_gives_what_the_network_gives_and_gradients_flow() -> None:
    torch.manual_seed(0)
    model = Net()
    traced = trace(model, (torch.randn(2, 2, 4),))
    x = torch.randn(5, 2, 4)
    output = execute(traced, (x,), tensors_of(model), call)[traced.outputs[0]]
    assert torch.equal(output, model(x))
    output.sum().backward()
    ours = model.conv.weight.grad
    model.zero_grad()
    model(x).sum().backward()
    assert ours is not None
    assert model.conv.weight.grad is not None
    assert torch.equal(ours, model.conv.weight.grad)


def test_other_tensors_take_the_place_of_the_networks() -> None:
    model = Net()
    traced = trace(model, (torch.randn(2, 2, 4),))
    x = torch.randn(3, 2, 4)
    output = execute(traced, (x,), {**tensors_of(model), "shift": torch.zeros(3, 1)}, call)[traced.outputs[0]]
    model.shift.zero_()
    assert torch.equal(output, model(x))


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x * 2


class OneBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 3) + 1


@pytest.mark.parametrize(
    ("model", "reason"), [(Twice(), "returns 2 tensors"), (OneBatch(), "one batch size")]
)
def test_what_cannot_be_gone_through_again_is_refused(model: nn.Module, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        check_can_run("here", trace(model, (torch.randn(2, 3),)))


def test_what_a_graph_makes_or_moves_is_on_the_device_that_it_runs_on() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(x.shape[1], device=x.device)
            seen = x.to(x.device, torch.bool)  # the device by its place among the arguments
            return seen[:, places].to(torch.float32)

    example = torch.ones(2, 3)
    traced = trace(Masked(), (example,))
    devices = []
    for node in traced:
        moved = on_device(node, torch.device("meta"))
        given = (*moved.args, *moved.kwargs.values()) if moved.kind == "call" else ()
        devices += [x for x in given if isinstance(x, torch.device)]
    assert len(devices) >= 2
    assert set(devices) == {torch.device("meta")}
    output = execute(
        traced,
        [example.to("meta")],
        {},
        lambda node, values: (
            compute(on_device(node, torch.device("meta")), values)
            if node.kind == "call"
            else values[node.name]
        ),
    )
    assert output[traced.outputs[0]].device.type == "meta"
