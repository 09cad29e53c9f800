"""What teaching brings: small networks taught by the whole one, beside the same small networks that learnt alone.

On ``watch`` and ``digits``, over seeds: a student with a sixteenth of the weights and a network cut to as many, taught
and not, in 8 bits; and 90 % of the weights, or all but a sixteenth, pruned little by little, taught or not, then 8
bits. Every training sees varied copies of the samples. All are judged on the test split in ONNX Runtime against one
trained network, on the mean over seeds (``tinypress.measure.seeds``). Who learns alone takes as many steps at the same
rate as who is taught.

What is trained is kept in a folder, so that a measurement that was stopped goes on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from tinypress.files import canonical, sha256
from tinypress.measure.quality import NamedMetric, evaluate, resolve_metric
from tinypress.measure.seeds import mean_and_spread, mean_drop
from tinypress.press.carry_out import carry_out
from tinypress.press.engine import Engine
from tinypress.press.recipe import Recipe
from tinypress.press.run_folder import RunFolder
from tinypress.press.shipped import write_artifact
from tinypress.press.step import Distill, Gradual, Quantize, Recover, Shrink, Student
from tinypress.press.steps import Bench
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Task
from tinypress.tasks.find import find_task

SETTINGS: dict[str, dict[str, float]] = {
    # share of the neurons that leave a sixteenth of the weights; epochs of a small network, of the gradual pruning, and
    # of teaching after it; how often an epoch sees each sample, varied
    "watch": {"ratio": 0.75, "epochs": 14, "gradual": 4, "taught": 8, "copies": 4},
    "digits": {"ratio": 0.77, "epochs": 20, "gradual": 4, "taught": 8, "copies": 4},
}
ALPHA = 0.9  # the teacher's share, as large as where it is the only one that is asked (Beyer et al. 2022)
RATE = 2e-3  # of every training; a network that was cut to so little has nearly all to learn again
# a recipe and the one that it is compared with
PAIRS = (
    ("student-taught", "student-alone"),
    ("cut-taught", "cut-alone"),
    ("cut-taught", "student-alone"),
    ("gradual-90-taught", "gradual-90-alone"),
)


def recipes(task: str) -> tuple[Recipe, ...]:
    """The recipes of ``task``, by name."""
    own = SETTINGS[task]
    ratio, epochs = own["ratio"], int(own["epochs"])
    copies = int(own["copies"])
    taught, alone = Distill(alpha=ALPHA, epochs=epochs, copies=copies), Recover(epochs=epochs, copies=copies)
    gradual = Gradual(sparsity=0.9, epochs=int(own["gradual"]), copies=copies)
    sixteenth = gradual.model_copy(update={"sparsity": 15 / 16})
    after = {"epochs": int(own["taught"])}
    teaching, learning = taught.model_copy(update=after), alone.model_copy(update=after)
    return (
        Recipe(name="whole", role="baseline"),
        Recipe(name="student-taught", steps=(Student(ratio=ratio), taught, Quantize())),
        Recipe(name="student-alone", steps=(Student(ratio=ratio), alone, Quantize())),
        Recipe(name="cut-taught", steps=(Shrink(ratio=ratio), taught, Quantize())),
        Recipe(name="cut-alone", steps=(Shrink(ratio=ratio), alone, Quantize())),
        Recipe(name="gradual-90", steps=(gradual, Quantize())),
        Recipe(name="gradual-90-taught", steps=(gradual, teaching, Quantize())),
        Recipe(name="gradual-90-alone", steps=(gradual, learning, Quantize())),
        Recipe(name="gradual-94", steps=(sixteenth, Quantize())),
        Recipe(name="gradual-94-taught", steps=(sixteenth, teaching, Quantize())),
    )


def measure(names: tuple[str, ...], seeds: int, keep: Path, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """For each task: bytes, quality and drop of every recipe over ``seeds`` seeds, and the pairs' differences."""
    return {name: _of_task(find_task(name), seeds, keep / name, only) for name in names}


def _of_task(task: Task, seeds: int, keep: Path, only: tuple[str, ...]) -> dict[str, Any]:
    task = replace(task, training=replace(task.training, learning_rate=RATE, recovery_learning_rate=RATE))
    metric = resolve_metric(task.metric, task.higher_is_better)
    answers: dict[str, list[Tensor]] = {}
    sizes: dict[str, list[int]] = {}
    weights: dict[str, int] = {}
    chosen = [recipe for recipe in recipes(task.name) if not only or recipe.name in (*only, "whole")]
    for seed in range(seeds):
        for recipe in chosen:
            path = _made(task, recipe, seed, keep)
            sizes.setdefault(recipe.name, []).append(path.stat().st_size)
            answers.setdefault(recipe.name, []).append(evaluate(open_onnx(path), task.test, metric).outputs)
            print(f"{task.name}: {recipe.name}, seed {seed}", flush=True)
    for recipe in chosen:
        folder, _ = _folder(task, recipe, 0, keep)
        compressed, _ = carry_out(folder, recipe, Bench(task, Engine(), 0))
        weights[recipe.name] = sum(int(torch.count_nonzero(p)) for p in compressed.model.parameters())
    rows = {
        name: {
            "bytes": sizes[name],
            "nonzero_weights": weights[name],
            "quality": mean_and_spread([_value(metric, x, task) for x in found]),
            "drop": _drop(task, metric, answers["whole"], found, task.tolerance),
        }
        for name, found in answers.items()
    }
    pairs = [
        {"name": a, "beside": b, "ahead": _drop(task, metric, answers[a], answers[b], 0.0)}
        for a, b in PAIRS
        if a in answers and b in answers
    ]
    return {"seeds": seeds, "tolerance": task.tolerance, "rows": rows, "pairs": pairs}


def _drop(
    task: Task, metric: NamedMetric, was: list[Tensor], now: list[Tensor], tolerance: float
) -> dict[str, Any]:
    return mean_drop(was, now, task.test.targets, task.test.groups, metric, tolerance, 0).model_dump()


def _value(metric: NamedMetric, outputs: Tensor, task: Task) -> float:
    return float(metric.function(outputs, task.test.targets))


def _folder(task: Task, recipe: Recipe, seed: int, keep: Path) -> tuple[RunFolder, str]:
    """A folder of the run for this seed; what it holds is known by the network and the task's training."""
    state = [x.detach().numpy().tobytes() for x in task.model.state_dict().values()]
    name = f"{recipe.name}-{sha256(canonical(recipe.model_dump(mode='json')))[:8]}"
    return RunFolder(keep / sha256(b"".join(state))[:8] / f"seed-{seed}"), name


def _made(task: Task, recipe: Recipe, seed: int, keep: Path) -> Path:
    folder, name = _folder(task, recipe, seed, keep)
    path = folder.artifacts / f"{name}.onnx"
    compressed, _ = carry_out(folder, recipe, Bench(task, Engine(), seed))
    write_artifact(folder, name, path, "onnx", compressed, task)
    return path


_SHOWN = {"better": "yes", "cannot tell": "no", "worse": "no, it is behind"}
_COLUMNS = ("recipe", "weights", "kB", "accuracy %", "drop, points", "95 %", "verdict")


def table(name: str, found: dict[str, Any]) -> Table:
    """The recipes of one task over seeds, and under them the pairs."""
    shown = Table(*_COLUMNS)
    shown.title = f"{name}, {found['seeds']} seeds, 8 bits, tolerance {found['tolerance']:g} points"
    for row in _rows(found):
        shown.add_row(*row)
    return shown


def page(results: dict[str, dict[str, Any]]) -> str:
    """The page of the docs: both tasks, and plainly what was shown and what was not."""
    lines = [
        "# What teaching brings",
        "",
        "Written by `python -m bench --only teaching`. Small networks taught by the whole one, beside the same small "
        "networks that learnt alone for as many steps: a student from random weights, and the whole network cut to as "
        "many. And 90 % of the weights, or 15 of 16, pruned little by little, and then taught or not. Every training "
        "sees varied copies of its samples. All in 8 bits, in ONNX Runtime, against one trained network; intervals are "
        "over seeds and test samples together.",
    ]
    for name, found in results.items():
        said = [
            f"`{p['name']}` ahead of `{p['beside']}`: {_SHOWN[_verdict(p['ahead'])]}" for p in found["pairs"]
        ]
        lines += [
            "",
            f"## {name}, {found['seeds']} seeds, tolerance {found['tolerance']:g} points",
            "",
            f"Shown at 95 %? {'; '.join(said)}.",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            "|" + "---|" * len(_COLUMNS),
            *(f"| {' | '.join(row)} |" for row in _rows(found)),
        ]
    return "\n".join(lines) + "\n"


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for recipe, row in found["rows"].items():
        mean, spread = row["quality"]
        drop = row["drop"]
        rows.append(
            (
                recipe,
                f"{row['nonzero_weights']:,}",
                f"{sum(row['bytes']) / len(row['bytes']) / 1000:.1f}",
                f"{100 * mean:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else ""),
                *(("", "", "") if recipe == "whole" else (*_span(drop), drop["verdict"])),
            )
        )
    for pair in found["pairs"]:
        name = f"{pair['name']} ahead of {pair['beside']}"
        rows.append((name, "", "", "", *_span(pair["ahead"]), _verdict(pair["ahead"])))
    return rows


def _verdict(ahead: dict[str, Any]) -> str:
    return "better" if ahead["low"] > 0 else "worse" if ahead["high"] < 0 else "cannot tell"


def _span(drop: dict[str, Any]) -> tuple[str, str]:
    return f"{drop['value']:.2f}", f"{drop['low']:.2f} to {drop['high']:.2f}"
