"""The step that removes layers whole, on a network with a list of residual blocks, among the other steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from press.small import samples
from tinypress.archive import read_archive, write_archive
from tinypress.errors import RecipeError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.engine import Engine
from tinypress.press.step import Distill, Layers, Magnitude, Quantize, Recover, Step, Structured
from tinypress.press.steps import apply_step
from tinypress.task import Task, Training


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.grow = nn.Linear(16, 24)
        self.back = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(torch.relu(self.grow(self.norm(x))))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(16, 16)
        self.blocks = nn.ModuleList([Block() for _ in range(4)])
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def a_task() -> Task:
    torch.manual_seed(1)
    return Task(
        name="stack",
        model=Stack().eval(),
        build=Stack,
        example_inputs=(torch.randn(2, 2, 8),),
        train=samples(200, 1),
        validation=samples(80, 2),
        test=samples(80, 3),
        loss=nn.functional.cross_entropy,
        metric="accuracy",
        training=Training(max_epochs=2, recovery_epochs=1),
    )


def carry_out(*steps: Step) -> Compressed:
    bench = Bench(a_task(), Engine(), seed=0)
    state = Compressed(bench.task.model)
    for step in steps:
        state = apply_step(step, state, bench, from_scratch=False)
    return state


@pytest.mark.parametrize("by", [{"count": 2}, {"ratio": 0.5}, {"by": "alternate"}], ids=str)
def test_the_list_becomes_shorter(by: dict[str, object], tmp_path: Path) -> None:
    done = carry_out(Layers(**by))
    assert len(done.model.blocks) == 2
    write_archive(tmp_path / "a.safetensors", done)
    again = read_archive(tmp_path / "a.safetensors", a_task().model)
    x = a_task().test.inputs[0]
    with torch.no_grad():
        assert torch.equal(again.model.eval()(x), done.model.eval()(x))


def test_zeros_are_kept_under_their_new_names() -> None:
    """The first layer goes, so that every pruned weight of the others is called otherwise."""
    pruned = carry_out(Magnitude(sparsity=0.6))
    keep = tuple(f"blocks.{place}" for place in (1, 2, 3))
    shorter = carry_out(Magnitude(sparsity=0.6), Layers(count=1, keep=keep))
    trained = carry_out(Magnitude(sparsity=0.6), Layers(count=1, keep=keep), Recover(epochs=2), Quantize())
    assert "blocks.2.grow.weight" in shorter.pruned
    assert "blocks.3.grow.weight" not in shorter.pruned
    for place in range(3):
        for layer in ("grow", "back"):
            zero = getattr(pruned.model.blocks[place + 1], layer).weight == 0
            assert bool(zero.any())
            assert bool((getattr(trained.model.blocks[place], layer).weight[zero] == 0).all())


@pytest.mark.parametrize(
    "other", [Structured(ratio=0.5), Distill(epochs=1), Quantize()], ids=lambda s: s.technique
)
def test_with_other_steps(other: Step) -> None:
    orders = [(Layers(count=1), other)]
    if not isinstance(other, Quantize):
        orders.append((other, Layers(count=1)))
    for steps in orders:
        done = carry_out(*steps)
        assert len(done.model.blocks) == 3
        with torch.no_grad():
            assert done.model.eval()(*a_task().test.inputs).shape == (80, 3)


@pytest.mark.parametrize("settings", [{}, {"count": 1, "ratio": 0.5}, {"count": 0}, {"ratio": 1.0}], ids=str)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        Layers(**settings)
