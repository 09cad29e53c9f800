"""Quality at equal MACs: ours beside Torch-Pruning and beside the same small network trained from scratch.

All three have at most the same MACs and are judged on the test split in ONNX Runtime. Both pruned networks get the
task's own recovery; the one from scratch gets the full training and the recovery's epochs on top.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from bench.peer import macs, within_macs
from tinypress.facts import Compressed
from tinypress.float_onnx import to_float_onnx
from tinypress.layers import rebuild, structure
from tinypress.measure.quality import Evaluation, evaluate, resolve_metric
from tinypress.measure.verdict import paired_drop
from tinypress.press.smaller import structured
from tinypress.press.step import Structured
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Task
from tinypress.tasks.find import find_task
from tinypress.train.loop import fit, silent, supervised
from tinypress.train.recovery import task_schedule


def measure(names: tuple[str, ...], share: float, seeds: int) -> dict[str, Any]:
    """For each task and seed: MACs and quality of the whole network and of the three, and what ours loses to both."""
    return {name: _of_task(find_task(name), share, seeds) for name in names}


def _of_task(task: Task, share: float, seeds: int) -> dict[str, Any]:
    whole = macs(task.model, task.example_inputs)
    most = share * whole
    rows = []
    for seed in range(seeds):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = _ours(task, most, seed)
            theirs = within_macs(task.model, task.example_inputs, most)
            made = {
                "ours": _trained(ours, task, task.training.recovery_epochs, seed, scratch=False),
                "theirs": _trained(theirs, task, task.training.recovery_epochs, seed, scratch=False),
                "from scratch": _trained(
                    _untrained(task, ours, seed),
                    task,
                    task.training.max_epochs + task.training.recovery_epochs,
                    seed,
                    scratch=True,
                ),
            }
        rows.append(_judged(task, made, seed))
    return {"macs": whole, "quality": _evaluated(task.model, task).value, "share": share, "seeds": rows}


def _ours(task: Task, most: float, seed: int) -> nn.Module:
    step = Structured(macs=most, importance="taylor", per="macs", min_width=2)
    return structured(step, Compressed(task.model), task, seed, silent).model


def _untrained(task: Task, like: nn.Module, seed: int) -> nn.Module:
    assert task.build is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = rebuild(task.build(), structure(like))
        for layer in model.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
    return model


def _trained(model: nn.Module, task: Task, epochs: int, seed: int, *, scratch: bool) -> nn.Module:
    assert task.train is not None
    assert task.loss is not None
    schedule = task_schedule(task.training, epochs, seed, from_scratch=scratch)
    return fit(model, task.train, task.validation, supervised(task.loss), schedule).model


def _evaluated(model: nn.Module, task: Task) -> Evaluation:
    runner = open_onnx(to_float_onnx(model, task.example_inputs).SerializeToString())
    return evaluate(runner, task.test, resolve_metric(task.metric, task.higher_is_better))


def _judged(task: Task, made: dict[str, nn.Module], seed: int) -> dict[str, Any]:
    metric = resolve_metric(task.metric, task.higher_is_better)
    results = {name: _evaluated(model, task) for name, model in made.items()}
    row: dict[str, Any] = {
        name: {"macs": macs(made[name], task.example_inputs), "quality": result.value}
        for name, result in results.items()
    }
    for other in ("theirs", "from scratch"):
        drop = paired_drop(
            results[other].outputs,
            results["ours"].outputs,
            task.test.targets,
            task.test.groups,
            metric,
            task.tolerance,
            seed,
        )
        row[f"lost to {other}"] = {"value": drop.value, "low": drop.low, "high": drop.high, "unit": drop.unit}
    return row
