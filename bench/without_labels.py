"""Weights of 3 and 4 bits in groups of 32, won back without labels; rounding to nearest beside each.

    efficientnet-lite0   4 bits   top-1 agreement with float on test photos, none of which calibrates   bar: 85 %
    minilm, five tasks   4, 3     points lost on average; the tables of words are quantized too         bar: 1, 3
    crepe-tiny           3        points of raw pitch accuracy lost                                     bar: 3

All weights have so many bits, first and last layer included. A recipe is the settings of ``quantize_weights``; what it
calibrates on are inputs of the train split (photos: train and validation), never targets. The networks are judged in
PyTorch on the weights that the integers stand for, which are those of the files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from tinypress.measure.quality import compute, resolve_metric
from tinypress.measure.verdict import paired_drop
from tinypress.quantize import quantize_weights
from tinypress.task import Split, Task
from tinypress.tasks import crepe, efficientnet, minilm
from tinypress.tasks.find import find_task

GROUP = 32
_BATCH = 24
_TEXTS = 128  # that calibrate MiniLM
_FRAMES = 256
_MINILM = ("minilm", "minilm-films", "minilm-mail", "minilm-wordsim", "minilm-simlex")


@dataclass(frozen=True)
class Recipe:
    """Settings of ``quantize_weights``, and which arguments get the calibration inputs."""

    name: str
    bits: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    sees: tuple[str, ...] = ()


def _nearest(bits: int, group_size: int | None = GROUP) -> Recipe:
    name = "nearest" if group_size else "nearest, a scale a channel"
    return Recipe(name, bits, {"group_size": group_size})


PHOTOS = (
    _nearest(4),
    Recipe("nearest, batch norm again", 4, {}, ("batch_norm",)),
    Recipe("least squares, batch norm again", 4, {"method": "mse"}, ("batch_norm",)),
    Recipe("GPTQ, batch norm again", 4, {"method": "gptq"}, ("calibration", "batch_norm")),
)
TEXTS = (
    _nearest(4),
    Recipe("GPTQ", 4, {"method": "gptq"}, ("calibration",)),
    _nearest(3),
    Recipe("GPTQ", 3, {"method": "gptq"}, ("calibration",)),
)
PITCH = (
    _nearest(3, None),
    Recipe("least squares, a scale a channel", 3, {"method": "mse", "group_size": None}),
    _nearest(3),
    Recipe("least squares", 3, {"method": "mse"}),
)


def measure(only: Sequence[str] = ()) -> dict[str, Any]:
    """For each network and recipe: quality of float and result on test, and the drop with its 95 % interval."""
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "efficientnet-lite0": _photos,
        "minilm": _texts,
        "crepe-tiny": _pitch,
    }
    return {name: make() for name, make in made.items() if not only or name in only}


def _photos() -> dict[str, Any]:
    task = efficientnet.load()
    assert task.train is not None
    seen = Split(
        tuple(torch.cat(pair) for pair in zip(task.train.inputs, task.validation.inputs, strict=True)),
        torch.cat((task.train.targets, task.validation.targets)),
    )
    return _rows(PHOTOS, task.model, seen, [(task, lambda model: model)])


def _pitch() -> dict[str, Any]:
    task = crepe.load_tiny()
    assert task.train is not None
    return _rows(PITCH, task.model, task.train.take(slice(0, _FRAMES)), [(task, lambda model: model)])


def _texts() -> dict[str, Any]:
    encoder = minilm.network()
    tasks = [find_task(name) for name in _MINILM]
    assert tasks[0].train is not None
    seen = tasks[0].train.take(slice(0, _TEXTS))
    tables = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Embedding)]
    return _rows(TEXTS, encoder, seen, [(task, _around(task)) for task in tasks], embeddings=tables)


def _around(task: Task) -> Callable[[nn.Module], nn.Module]:
    """What puts a quantized encoder into the task's network."""

    def put(encoder: nn.Module) -> nn.Module:
        if not hasattr(task.model, "encoder"):
            return encoder
        model = copy.deepcopy(task.model)
        model.encoder = encoder
        return model

    return put


def _rows(
    recipes: Sequence[Recipe],
    model: nn.Module,
    seen: Split,
    tasks: Sequence[tuple[Task, Callable[[nn.Module], nn.Module]]],
    **settings: Any,
) -> dict[str, Any]:
    was = [_outputs(put(model), task.test) for task, put in tasks]
    found = []
    for recipe in recipes:
        given = {"group_size": GROUP, **settings, **recipe.settings, **dict.fromkeys(recipe.sees, seen)}
        example = tuple(column[:2] for column in seen.inputs)
        small = quantize_weights(model, recipe.bits, example_inputs=example, **given).model
        each = {
            task.name: _judged(task, before, _outputs(put(small), task.test))
            for (task, put), before in zip(tasks, was, strict=True)
        }
        mean = sum(row["lost_points"] for row in each.values()) / len(each)
        found.append({"recipe": recipe.name, "bits": recipe.bits, "lost_points": mean, "tasks": each})
    return {"samples_seen": len(seen), "recipes": found}


@torch.no_grad()
def _outputs(model: nn.Module, split: Split) -> Tensor:
    parts = zip(*(torch.split(column, _BATCH) for column in split.inputs), strict=True)
    return torch.cat([model(*part) for part in parts])


def _judged(task: Task, before: Tensor, after: Tensor) -> dict[str, Any]:
    metric = resolve_metric(task.metric, task.higher_is_better)
    drop = paired_drop(before, after, task.test.targets, task.test.groups, metric, task.tolerance, 0)
    points = 1.0 if metric.unit == "points" else 100.0  # a correlation of 1 counts as 100 points
    return {
        "float": compute(metric, before, task.test.targets),
        "value": compute(metric, after, task.test.targets),
        "lost_points": points * drop.value,
        "interval": (points * drop.low, points * drop.high),
    }


def table(row: dict[str, Any]) -> Table:
    """A line each recipe and task, with the mean of the tasks where there are several."""
    made = Table("network", "bits", "recipe", "quality, float", "quality", "lost, points", "95 %")
    made.title = "weights of few bits, recovered without labels"
    for name, found in row.items():
        for recipe in found["recipes"]:
            start = (name, str(recipe["bits"]), recipe["recipe"])
            if len(recipe["tasks"]) > 1:
                made.add_row(*start, "", "", f"{recipe['lost_points']:.2f} on average", "")
                start = ("", "", "")
            for task, each in recipe["tasks"].items():
                low, high = each["interval"]
                label = start if start[0] else ("", "", f"  {task}")
                made.add_row(
                    *label,
                    f"{100 * each['float']:.1f}",
                    f"{100 * each['value']:.1f}",
                    f"{each['lost_points']:.2f}",
                    f"{low:.2f} to {high:.2f}",
                )
    return made
