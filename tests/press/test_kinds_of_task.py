"""Tasks of every kind go through the pipeline: several inputs, regression, embeddings, a metric of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import ModelError, TaskError
from tinypress.press.compare import compare_compression_techniques, standard_recipes
from tinypress.press.pipeline import press
from tinypress.press.verify import verify
from tinypress.task import Split, Task, Training

SHORT = Training(max_epochs=2, recovery_epochs=1)


class TwoInputs(nn.Module):
    """Motion [B, 3, 16] and two facts about the wearer [B, 2]; one number [B, 1] or 3 logits."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.motion = nn.Conv1d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm1d(12)
        self.wearer = nn.Linear(2, 8, bias=False)
        self.joined = nn.Linear(20, 16)
        self.head = nn.Linear(16, outputs)

    def forward(self, motion: Tensor, wearer: Tensor) -> Tensor:
        pooled = torch.relu(self.norm(self.motion(motion))).mean(-1)
        joined = torch.cat([pooled, torch.relu(self.wearer(wearer))], 1)
        found: Tensor = self.head(torch.relu(self.joined(joined)))
        return found


class Encoder(nn.Module):
    """Steps [B, 6, 5] to unit vectors [B, 8]: Linear layers on every step, then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 24, bias=False)
        self.second = nn.Linear(24, 24)
        self.out = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.relu(self.second(torch.relu(self.first(x))))
        return nn.functional.normalize(self.out(steps.mean(1)), dim=-1)


def trained(model: nn.Module, split: Split, loss: Any) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        found = loss(model(*split.inputs), split.targets)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
    return model.eval()


def regression() -> Task:
    def split(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        motion = torch.randn(count, 3, 16, generator=generator)
        wearer = torch.randn(count, 2, generator=generator)
        return Split((motion, wearer), (motion.mean((1, 2)) * 4 + wearer[:, 0])[:, None])

    torch.manual_seed(0)
    train, loss = split(200, 1), nn.functional.mse_loss
    return Task(
        name="regression",
        model=trained(TwoInputs(), train, loss),
        build=TwoInputs,
        example_inputs=tuple(x[:2] for x in train.inputs),
        train=train,
        validation=split(80, 2),
        test=split(80, 3),
        loss=loss,
        metric="mae",
        tolerance=0.1,
        training=SHORT,
    )


def embeddings() -> Task:
    def split(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 6, 5, generator=generator)
        places = torch.randn(5, 8, generator=torch.Generator().manual_seed(9))
        return Split((x,), nn.functional.normalize(x.mean(1) @ places, dim=-1))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (1 - (outputs * targets).sum(-1)).mean()

    torch.manual_seed(0)
    train = split(200, 1)
    return Task(
        name="embeddings",
        model=trained(Encoder(), train, loss),
        build=Encoder,
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=split(80, 2),
        test=split(80, 3),
        loss=loss,
        metric="retrieval_at_1",
        tolerance=5.0,
        training=SHORT,
    )


def own_metric() -> Task:
    def split(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        motion = torch.randn(count, 3, 16, generator=generator)
        wearer = torch.randn(count, 2, generator=generator)
        return Split((motion, wearer), (wearer[:, 0] > 0).long() + (motion.mean((1, 2)) > 0).long())

    def worst_class(outputs: Tensor, targets: Tensor) -> float:
        right = outputs.argmax(1) == targets
        return min(float(right[targets == k].float().mean()) for k in targets.unique())

    torch.manual_seed(0)
    train, loss = split(200, 1), nn.functional.cross_entropy
    return Task(
        name="own-metric",
        model=trained(TwoInputs(3), train, loss),
        example_inputs=tuple(x[:2] for x in train.inputs),
        train=train,
        validation=split(120, 2),
        test=split(120, 3),
        loss=loss,
        metric=worst_class,
        higher_is_better=True,
        tolerance=0.1,
        training=SHORT,
    )


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=SLOW) for make in (regression, embeddings, own_metric)],
    ids=lambda make: make.__name__,
)
def test_it_goes_through_every_standard_recipe(make: Any, tmp_path: Path) -> None:
    task = make()
    receipt = press(task, standard_recipes(task), tmp_path / "run")
    names = {candidate.name for candidate in receipt.candidates}
    assert {"fp32", "prune", "int8", "shrink", "prune+int8.archive", "shrink+distill+int8"} <= names
    assert ("distill" in names) == (task.build is not None)
    by_name = {candidate.name: candidate for candidate in receipt.candidates}
    assert by_name["shrink"].parameters < by_name["fp32"].parameters
    assert {layer.bits for layer in by_name["int8"].layers if layer.macs} == {8}
    assert verify(tmp_path / "run", make()) == ()


@SLOW
def test_without_train_and_loss_recovery_is_refused_with_that_reason(tmp_path: Path) -> None:
    from tinypress.press.recipe import Recipe
    from tinypress.press.step import Recover

    whole = own_metric()
    bare = Task(
        name="bare",
        model=whole.model,
        example_inputs=whole.example_inputs,
        validation=whole.validation,
        test=whole.test,
        metric="accuracy",
    )
    recipes = standard_recipes(bare)
    assert {step.technique for recipe in recipes for step in recipe.steps} <= {
        "magnitude",
        "quantize",
        "shrink",
    }
    with pytest.raises(TaskError, match="the task gives no train data"):
        press(bare, (recipes[0], Recipe(name="r", steps=(Recover(),))), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    receipt = press(bare, recipes, tmp_path / "run")
    assert len(receipt.candidates) >= 4


class Shallow(nn.Module):
    """Steps [B, 6, 8] to 3 logits in one layer, whose neurons are the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x.flatten(1))
        return found


@pytest.mark.slow
def test_what_does_not_fit_a_network_is_left_out_of_its_comparison_aloud(tmp_path: Path) -> None:
    def split(count: int, seed: int) -> Split:
        x = torch.randn(count, 6, 8, generator=torch.Generator().manual_seed(seed))
        return Split((x,), (x.mean((1, 2)) * 9).long().clamp(-1, 1) + 1)

    torch.manual_seed(0)
    train, loss = split(120, 1), nn.functional.cross_entropy
    task = Task(
        name="shallow",
        metric="accuracy",
        model=trained(Shallow(), train, loss),
        build=Shallow,
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=split(60, 2),
        test=split(60, 3),
        loss=loss,
        training=SHORT,
    )
    receipt = compare_compression_techniques(task, tmp_path / "run")
    names = {candidate.name for candidate in receipt.candidates}
    wanted = {recipe.name for recipe in standard_recipes(task)}
    gone = wanted - names
    assert gone == {name for name in wanted if "shrink" in name or "small" in name or name == "distill"}
    (finding,) = [f for f in receipt.findings if f.code == "TP403"]
    assert all(name in finding.text for name in gone)
    assert "head (Linear) keeps all its neurons" in finding.text
    assert {layer.bits for layer in receipt.candidate("int8").layers if layer.name == "head"} == {8}
    with pytest.raises(ModelError, match="no layer can lose neurons"):
        press(task, standard_recipes(task), tmp_path / "asked")
