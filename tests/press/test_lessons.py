"""The steps that a sentence encoder is made small with: taught by embeddings and hidden states, tables of few bits."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from tinypress.archive import read_archive
from tinypress.distill import IndependentClasses, WeightedSum
from tinypress.errors import InputError, RecipeError
from tinypress.facts import Compressed
from tinypress.measure.packed import packed_weights
from tinypress.press.bench import Bench
from tinypress.press.compare import BASELINE
from tinypress.press.engine import Engine
from tinypress.press.lessons import loss_of
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe, parse_recipes
from tinypress.press.step import Distill, Layers, Quantize
from tinypress.press.steps import apply_step
from tinypress.quantize import dequantize_layer_weights
from tinypress.receipt import Receipt
from tinypress.task import Split, Task, Training

WORDS, LENGTH, WIDTH = 60, 7, 16
HIDDEN = {"blocks.0.norm": "blocks.1.norm"}


class Block(nn.Module):
    """[B, T, D] to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + torch.tanh(self.mix(x)))


class Encoder(nn.Module):
    """Ids and mask [B, T] to embeddings of length 1, [B, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return nn.functional.normalize((x * mask.unsqueeze(-1)).sum(1), dim=1)


def texts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LENGTH + 1, (count, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    return torch.randint(1, WORDS, (count, LENGTH), generator=generator) * mask, mask


def a_task() -> Task:
    torch.manual_seed(0)
    model = Encoder().eval()
    splits = []
    for count, seed in ((256, 1), (64, 2), (64, 3)):
        columns = texts(count, seed)
        with torch.no_grad():
            splits.append(Split(columns, model(*columns)))
    train, validation, test = splits
    return Task(
        name="encoder",
        model=model,
        example_inputs=tuple(x[:2] for x in test.inputs),
        train=Split(train.inputs, torch.zeros(len(train), 1)),
        validation=validation,
        test=test,
        loss=lambda outputs, targets: (1 - nn.functional.cosine_similarity(outputs, targets)).mean(),
        metric="retrieval_at_1",
        training=Training(recovery_epochs=1, batch_size=32),
    )


def carried_out(*steps: Layers | Distill) -> tuple[Compressed, Task]:
    task = a_task()
    state = Compressed(task.model)
    for step in steps:
        state = apply_step(step, state, Bench(task, Engine(), 0), from_scratch=False)
    return state, task


def far(model: nn.Module, task: Task) -> float:
    """1 - cosine to the whole network, the mean over the test texts."""
    with torch.no_grad():
        return float(task.loss(model(*task.test.inputs), task.test.targets))  # type: ignore[misc]


def test_a_shallower_encoder_is_taught_without_labels() -> None:
    cut, task = carried_out(Layers(count=1, by="alternate"))
    lesson = Distill(loss="embeddings", hidden=HIDDEN, epochs=6, learning_rate=3e-3)
    taught, _ = carried_out(Layers(count=1, by="alternate"), lesson)
    assert far(taught.model, task) < 0.6 * far(cut.model, task)
    parts = {change.what for change in taught.changes}
    assert {f"loss part {name!r}" for name in ("cosine", "contrast", "hidden blocks.0.norm")} <= parts


def test_the_rate_of_the_step_is_the_one_that_it_trains_with() -> None:
    slow, task = carried_out(Layers(count=1, by="alternate"), Distill(loss="embeddings", learning_rate=1e-9))
    cut, _ = carried_out(Layers(count=1, by="alternate"))
    assert far(slow.model, task) == pytest.approx(far(cut.model, task), abs=1e-5)


def test_which_loss_a_step_names() -> None:
    task, engine = a_task(), Engine()
    assert isinstance(loss_of(Distill(loss="embeddings"), task, engine), WeightedSum)
    assert isinstance(loss_of(Distill(loss="independent"), task, engine), IndependentClasses)
    with pytest.raises(RecipeError, match="hidden needs loss"):
        parse_recipes(
            "x", {"recipes": [{"name": "a", "steps": [{"technique": "distill", "hidden": HIDDEN}]}]}
        )


def test_classes_that_do_not_exclude_each_other() -> None:
    """The gradient at each logit is what the student says above the teacher, as in the closed form."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    student.requires_grad_(True)
    loss = IndependentClasses(1.0, lambda outputs, targets: outputs.sum() * float("nan"))
    loss(student, teacher, torch.zeros(5)).backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, (student.sigmoid() - teacher.sigmoid()).detach() / 5)
    student = student.detach()
    both = IndependentClasses(0.25, lambda outputs, targets: (outputs[:, 0] - targets).square().mean())
    wanted = 0.25 * loss(student, teacher, torch.zeros(5)) + 0.75 * student[:, 0].square().mean()
    assert float(both(student, teacher, torch.zeros(5))) == pytest.approx(float(wanted))
    for alpha in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="alpha"):
            IndependentClasses(alpha, lambda outputs, targets: outputs.sum())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Receipt, Path]:
    bits = {"table": 2, "blocks.0.mix": 4, "blocks.1.mix": 4}
    step = Quantize(layers=bits, weights_only=True, group_size=16, scheme="affine", embeddings=("table",))
    folder = tmp_path_factory.mktemp("encoder") / "run"
    recipe = Recipe(name="two", steps=(step,), ship=("onnx", "archive"))
    return press(a_task(), (BASELINE, recipe), folder), folder


def test_a_table_gets_its_own_bits_in_both_files(run: tuple[Receipt, Path]) -> None:
    receipt, folder = run
    graph = onnx.load(folder / "artifacts" / "two.onnx").graph
    stored, _ = packed_weights(graph)
    plan = read_archive(folder / "artifacts" / "two.archive.safetensors", a_task().model).plan
    assert plan is not None
    assert {name: weight.bits for name, weight in plan.weights.items()} == {
        "table.weight": 2,
        "blocks.0.mix.weight": 4,
        "blocks.1.mix.weight": 4,
    }
    assert stored["table.weight"][1] == 2
    assert (stored["table.weight"][0] == dequantize_layer_weights(plan.weights["table.weight"]).numpy()).all()
    sizes = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    assert sizes["table.weight"] == WORDS * WIDTH // 4  # four to a byte
    layers = {layer.name: layer.bits for layer in receipt.candidate("two").layers}
    assert layers["table"] == 2
    assert receipt.candidate("two").quality.value == receipt.candidate("two.archive").quality.value


def test_a_lesson_is_written_and_read_again() -> None:
    raw = {"technique": "distill", "loss": "embeddings", "hidden": HIDDEN}
    first = parse_recipes("x", {"recipes": [{"name": "r", "steps": [raw]}]}).recipes[0]
    again = parse_recipes("x", {"recipes": [first.model_dump(mode="json")]}).recipes[0]
    assert again == first
    assert hash(again.steps) == hash(first.steps)
    assert again.steps[0].model_dump()["hidden"] == HIDDEN
