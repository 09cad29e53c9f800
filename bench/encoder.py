"""What a shipped sentence encoder is worth on all five text tasks, as a file in ONNX Runtime, beside the original's.

Twice: as it stands, with the index of words and the linear layers that were made for the original; and with both made
anew by the encoder itself from the training splits, which is fair to one that the original did not teach.

Legend: N texts, L tokens, D numbers of an embedding, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinypress.files import sha256
from tinypress.measure.metrics import NamedMetric, own_is_nearest
from tinypress.measure.quality import resolve_metric
from tinypress.measure.resample import percentiles, resampled
from tinypress.measure.verdict import paired_drop
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Task
from tinypress.tasks import minilm
from tinypress.train.sealed import read_sealed, write_sealed

TASKS: tuple[tuple[str, Callable[[], Task]], ...] = (
    ("definition to word", minilm.load),
    ("WordSim-353", minilm.load_wordsim),
    ("SimLex-999", minilm.load_simlex),
    ("films", minilm.load_films),
    ("mail", minilm.load_mail),
)
Way = Literal["as it stands", "made anew"]
WAYS: tuple[Way, ...] = ("as it stands", "made anew")
TOLERANCE = 3.0  # points, of each task

Embed = Callable[[Sequence[Tensor]], Tensor]
"""From ids [N, L] and their mask to embeddings [N, D]."""


def _hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:, 0].double()


SHARE_RIGHT = NamedMetric(
    "share right", lambda outputs, targets: float(outputs.mean()), True, "points", _hits, proportion=True
)


def measure(files: Mapping[str, Path], original: Path, kept: Path | None = None) -> dict[str, Any]:
    """By name of a file and way: each task's value in points with its drop from ``original``, and the mean drop.

    Args:
        kept: folder that keeps what a file answered, under the hash of its bytes, for the next call.

    Raises:
        ArtifactError: a file that ONNX Runtime cannot run.
        DataError: a package with texts is not installed.
    """
    tasks = {name: load() for name, load in TASKS}
    whole = answers(tasks, original, kept)["as it stands"]
    results: dict[str, Any] = {}
    for name, file in files.items():
        found = dict.fromkeys(WAYS, whole) if file == original else answers(tasks, file, kept)
        results[name] = {way: _compared(tasks, whole, found[way]) for way in WAYS}
    return results


def answers(tasks: Mapping[str, Task], file: Path, kept: Path | None = None) -> dict[Way, dict[str, Tensor]]:
    """What the encoder in ``file`` says on each task's test texts, [N, 1]: 1 where it is right, or how alike two
    words are."""
    key = sha256(file.read_bytes())
    place = None if kept is None else kept / f"answers-{key[:32]}.safetensors"
    found = read_sealed(place) if place is not None else None
    if found is not None and found[1] == {"key": key}:
        return {way: {name: found[0][f"{way}: {name}"] for name in tasks} for way in WAYS}
    said = _judged(tasks, opened(file))
    if place is not None:
        flat = {f"{way}: {name}": x for way, each in said.items() for name, x in each.items()}
        write_sealed(place, flat, {"key": key})
    return said


def opened(file: Path) -> Embed:
    """What embeds texts with the encoder in ``file``, cut or padded to as many tokens as it takes."""
    runner = open_onnx(file)
    shape = runner.session.get_inputs()[0].shape
    length = shape[1] if isinstance(shape[1], int) else None

    def embed(columns: Sequence[Tensor]) -> Tensor:
        ids, mask = (fitted(x, length) for x in columns)
        rows = []
        for part in zip(torch.split(ids, 32), torch.split(mask, 32), strict=True):
            rows.append(torch.from_numpy(np.array(runner.run([x.numpy() for x in part]), np.float32)))
        return torch.cat(rows)

    return embed


def fitted(column: Tensor, length: int | None) -> Tensor:
    """Ids or mask [N, L] with ``length`` columns: those behind are cut off, missing ones are padding, 0."""
    if length is None:
        return column
    return torch.nn.functional.pad(column[:, :length], (0, max(0, length - column.shape[1])))


@torch.no_grad()
def _judged(tasks: Mapping[str, Task], embed: Embed) -> dict[Way, dict[str, Tensor]]:
    found: dict[Way, dict[str, Tensor]] = {way: {} for way in WAYS}
    for name, task in tasks.items():
        test, train = task.test, task.train
        assert train is not None
        for way in WAYS:
            if isinstance(task.model, minilm.PairEncoder):
                if way == "made anew":
                    found[way][name] = found["as it stands"][name]
                    continue
                left, right = embed(test.inputs[:2]), embed(test.inputs[2:])
                found[way][name] = (left * right).sum(1, keepdim=True)
                continue
            if way == "as it stands":
                embeddings = embed(test.inputs)
            if isinstance(task.model, minilm.Probe):
                head = task.model.head
                if way == "made anew":
                    with torch.enable_grad():
                        head = minilm.fit_head(embed(train.inputs), train.targets, 2)
                right_ones = head(embeddings).argmax(1) == test.targets
            else:
                words = test.targets if way == "as it stands" else embed(minilm.defined_words())
                right_ones = own_is_nearest(embeddings, words)
            found[way][name] = right_ones.float().unsqueeze(1)
    return found


def _compared(
    tasks: Mapping[str, Task], whole: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    moved: list[NDArray[np.float64]] = []
    for seed, (name, task) in enumerate(tasks.items()):
        ranked = isinstance(task.model, minilm.PairEncoder)
        metric = resolve_metric("spearman", True) if ranked else SHARE_RIGHT
        both, targets = (whole[name], found[name]), task.test.targets
        scale = 100.0 if ranked else 1.0  # a rank correlation of 1 counts as 100 points
        drop = paired_drop(*both, targets, None, metric, TOLERANCE / scale, seed)
        rows[name] = {
            "value": 100 * metric.function(found[name], targets),
            "drop": scale * drop.value,
            "low": scale * drop.low,
            "high": scale * drop.high,
            "verdict": drop.verdict,
        }
        values = resampled(both, targets, None, metric, seed)
        moved.append(100 * (values[:, 0] - values[:, 1]))
    fewest = min(len(task.test) for task in tasks.values())
    means = np.mean([each[: min(map(len, moved))] for each in moved], axis=0)
    low, high = percentiles(means, fewest)
    mean = sum(row["drop"] for row in rows.values()) / len(rows)
    value = sum(row["value"] for row in rows.values()) / len(rows)
    return {"tasks": rows, "mean": {"value": value, "drop": mean, "low": low, "high": high}}
