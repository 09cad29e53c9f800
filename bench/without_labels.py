"""Weights of 3 and 4 bits in groups of 32, won back without labels; rounding to nearest beside each.

    efficientnet-lite0   4 bits   top-1 agreement with float on test photos, none of which calibrates   bar: 85 %
    minilm, five tasks   4, 3     points lost on average; the tables of words are quantized too         bar: 1, 3
    crepe-tiny           3        points of raw pitch accuracy lost                                     bar: 3

All weights have so many bits, first and last layer included. A recipe is the settings of ``quantize_weights``; what it
calibrates on are inputs of the train split (photos: crops of those of train and validation), never targets. The
networks are judged in PyTorch on the weights that the integers stand for, which are those of the files; bytes are those
of the ONNX files.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from tinypress.files import write_json
from tinypress.float_onnx import to_float_onnx
from tinypress.measure.quality import compute, resolve_metric
from tinypress.measure.verdict import paired_drop
from tinypress.quantize import Reconstruction, quantize_weights
from tinypress.ship.to_onnx import to_onnx
from tinypress.task import Split, Task
from tinypress.tasks import crepe, efficientnet, minilm, photos
from tinypress.tasks.find import find_task
from tinypress.train.progress import Progress, silent

GROUP = 32
_BATCH = 24
_CROPS = 24  # of each photo that calibrates
_TEXTS = 256  # that calibrate MiniLM
_FRAMES = 1024
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


def _blocks(bits: int) -> Recipe:
    return Recipe("blocks", bits, {"method": "blocks"}, ("calibration",))


def _short(bits: int) -> Recipe:
    """A tenth of the usual steps' work, which takes a core an hour."""
    how = Reconstruction(steps=100, batch_size=8, weight_rate=0.03)
    settings = {"method": "blocks", "reconstruction": how}
    return Recipe("blocks, 100 steps of 8", bits, settings, ("calibration",))


PHOTOS = (
    _nearest(4),
    Recipe("nearest, batch norm again", 4, {}, ("batch_norm",)),
    _short(4),
)
TEXTS = (
    _nearest(4),
    Recipe("least squares", 4, {"method": "mse"}),
    Recipe("GPTQ", 4, {"method": "gptq"}, ("calibration",)),
    _nearest(3),
    Recipe("least squares", 3, {"method": "mse"}),
    Recipe("GPTQ", 3, {"method": "gptq"}, ("calibration",)),
    _blocks(3),
)
PITCH = (
    _nearest(3, None),
    Recipe("least squares, a scale a channel", 3, {"method": "mse", "group_size": None}),
    _nearest(3),
    Recipe("least squares", 3, {"method": "mse"}),
    _blocks(3),
)


def measure(
    only: Sequence[str] = (), keep: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """For each network and recipe: quality of float and result on test, and the drop with its 95 % interval.

    Args:
        keep: folder that keeps what a recipe came to, for the next call.
    """
    made: dict[str, Callable[[_Course], dict[str, Any]]] = {
        "efficientnet-lite0": _photos,
        "crepe-tiny": _pitch,
        "minilm": _texts,
    }
    return {
        name: make(_Course(name, keep, progress)) for name, make in made.items() if not only or name in only
    }


@dataclass(frozen=True)
class _Course:
    """One network's rows: what is measured already, and who watches."""

    name: str
    keep: Path | None
    progress: Progress

    def row(self, recipe: Recipe, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of ``recipe``, as it was measured before or is now."""
        key = f"{self.name}-{recipe.name}-{recipe.bits}".replace(" ", "_")
        place = None if self.keep is None else self.keep / f"{key.replace(',', '')}.json"
        if place is not None and place.is_file():
            found: dict[str, Any] = json.loads(place.read_text())
            return found
        begun = time.perf_counter()
        row = {
            "recipe": recipe.name,
            "bits": str(recipe.bits),
            **make(),
        }
        row["seconds"] = time.perf_counter() - begun
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, row)
        return row


def _photos(course: _Course) -> dict[str, Any]:
    task = efficientnet.load()
    crops, owners = photos.crops((*photos.TRAIN, *photos.VALIDATION), _CROPS, seed=0)
    crops = crops.contiguous(memory_format=torch.channels_last)  # a third faster to learn from on a processor
    return _rows(course, PHOTOS, task.model, Split((crops,), owners), [(task, lambda model: model)])


def _pitch(course: _Course) -> dict[str, Any]:
    task = crepe.load_tiny()
    assert task.train is not None
    seen = task.train.take(slice(0, _FRAMES))
    return _rows(course, PITCH, task.model, seen, [(task, lambda model: model)])


def _texts(course: _Course) -> dict[str, Any]:
    encoder = minilm.network()
    tasks = [find_task(name) for name in _MINILM]
    assert tasks[0].train is not None
    seen = tasks[0].train.take(slice(0, _TEXTS))
    tables = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Embedding)]
    return _rows(course, TEXTS, encoder, seen, [(task, _around(task)) for task in tasks], embeddings=tables)


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
    course: _Course,
    recipes: Sequence[Recipe],
    model: nn.Module,
    seen: Split,
    tasks: Sequence[tuple[Task, Callable[[nn.Module], nn.Module]]],
    **settings: Any,
) -> dict[str, Any]:
    example = tuple(column[:2] for column in seen.inputs)
    whole = len(to_float_onnx(model, example).SerializeToString())
    was = [_outputs(put(model), task.test) for task, put in tasks]

    def made(recipe: Recipe) -> dict[str, Any]:
        given = {"group_size": GROUP, **settings, **recipe.settings, **dict.fromkeys(recipe.sees, seen)}
        small = quantize_weights(
            model, recipe.bits, example_inputs=example, progress=course.progress, **given
        )
        each = {
            task.name: _judged(task, before, _outputs(put(small.model), task.test))
            for (task, put), before in zip(tasks, was, strict=True)
        }
        mean = sum(row["lost_points"] for row in each.values()) / len(each)
        size = len(to_onnx(small, example).SerializeToString())
        return {"lost_points": mean, "tasks": each, "file_bytes": size, "share_of_float": size / whole}

    found = [course.row(recipe, lambda recipe=recipe: made(recipe)) for recipe in recipes]
    return {"samples_seen": len(seen), "float_bytes": whole, "recipes": found}


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
    made = Table(*_COLUMNS, title="weights of few bits, recovered without labels")
    for line in _lines(row):
        made.add_row(*line)
    return made


def page(row: dict[str, Any], machine: Mapping[str, Any]) -> str:
    """The page of the docs: the same as a Markdown table."""
    seen = ", ".join(f"{found['samples_seen']} for {name}" for name, found in row.items())
    lines = [
        "# Few bits without labels",
        "",
        "Written by `python -m bench --only without-labels`. Every weight has so many bits, the first and the last "
        "layer's too, in groups of 32 with a scale each where nothing else is said; activations stay float. "
        f"Inputs that were looked at, without their targets: {seen}. *Lost* is what the quantized network is below the "
        "float one on the same test samples, in points, with its 95 % paired interval (over photos and recordings "
        "where several samples are of one). The quality of `efficientnet-lite0` is how often it names the class that "
        "the float network names, on photos that were not looked at. Bytes are those of the ONNX file, and their "
        f"share of the float file's. Measured on {machine['cpu'] or 'this processor'}, {machine['threads']} "
        "thread(s), beside other work: the minutes are an upper bound.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *(f"| {' | '.join(line)} |" for line in _lines(row)),
    ]
    return "\n".join(lines) + "\n"


_COLUMNS = (
    "network",
    "bits",
    "recipe",
    "quality, float",
    "quality",
    "lost, points",
    "95 %",
    "bytes",
    "minutes",
)


def _lines(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, found in row.items():
        for recipe in found["recipes"]:
            start = (name, recipe["bits"], recipe["recipe"])
            size = f"{recipe['file_bytes']:,} ({recipe['share_of_float']:.3f}x)"
            end = (size, f"{recipe['seconds'] / 60:.1f}")
            if len(recipe["tasks"]) > 1:
                yield (*start, "", "", f"{recipe['lost_points']:.2f} on average", "", *end)
                start, end = ("", "", ""), ("", "")
            for task, each in recipe["tasks"].items():
                low, high = each["interval"]
                yield (
                    *(start if start[0] else ("", "", task)),
                    f"{100 * each['float']:.1f}",
                    f"{100 * each['value']:.1f}",
                    f"{each['lost_points']:.2f}",
                    f"{low:.2f} to {high:.2f}",
                    *end,
                )
