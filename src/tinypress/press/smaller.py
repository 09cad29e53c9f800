"""The steps that leave a smaller dense network, with what they take from the task: data, losses, and a clock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tinypress.errors import ArtifactError
from tinypress.facts import Change, Compressed, Note
from tinypress.layers import names_now, stock_name
from tinypress.measure.latency_table import LatencyTable, read_latency_table, write_latency_table
from tinypress.measure.layer_latency import measure_layers
from tinypress.measure.network_latency import onnx_latency
from tinypress.press.step import Factorize, Layers, Structured
from tinypress.prune import keep_zeros
from tinypress.search import search_architecture
from tinypress.shrink import Budget, factorize_model, prune_structured, remove_layers
from tinypress.task import Split, Task
from tinypress.train.loop import Progress, fit, silent, supervised
from tinypress.train.recovery import task_schedule

_SAMPLES, _BATCH = 256, 64  # that an importance is worked out on


def structured(
    step: Structured, before: Compressed, task: Task, seed: int, folder: Path | None, progress: Progress
) -> Compressed:
    """``before`` pruned to the goal of ``step``, recovered between its rounds; pruned zeros stay zero. ``folder`` keeps
    the times of the layers where they are asked for."""
    samples = _samples(task, seed)
    losses = tuple(_loss_on(task, part) for part in _batches(samples)) if task.loss is not None else ()
    trained: list[int] = []

    def recover(model: nn.Module, number: int) -> nn.Module:
        assert task.train is not None
        assert task.loss is not None
        if number == step.rounds:  # what follows is the recipe's own
            return model
        fitted = fit(
            model,
            task.train,
            task.validation,
            supervised(task.loss),
            task_schedule(task.training, step.epochs, seed),
            after_step=lambda trained_model: keep_zeros(trained_model, before.pruned),
            progress=progress,
            what=f"recovering after cut {number} of {step.rounds}",
        )
        trained.append(fitted.steps)
        return fitted.model

    after = prune_structured(
        before.model,
        task.example_inputs,
        ratio=step.ratio,
        budget=None if step.ratio is not None else _budget(step, before.model, task),
        importance=step.importance,
        scope=step.scope,
        per=step.per,
        table=_timed(before.model, task, folder, progress) if step.per == "latency_ms" else None,
        keep=step.keep,
        units=step.units,
        multiple=step.multiple,
        min_width=step.min_width,
        calibration=samples.inputs,
        losses=losses,
        steps=step.rounds,
        recover=recover if step.rounds > 1 else None,
        seed=seed,
        progress=progress,
    )
    changes = (*after.changes, *([Change("", "training steps", 0, sum(trained))] if trained else []))
    return replace(after, changes=changes, pruned=before.pruned)


def searched(
    step: Structured, before: Compressed, task: Task, seed: int, folder: Path | None, progress: Progress
) -> Compressed:
    """``before`` with the widths, heads and layers that a search under the budget of ``step`` leaves; pruned zeros
    stay zero. ``folder`` keeps its rounds, and the times of the layers where they are asked for."""
    table = None
    if step.latency_ms is not None:
        table = _timed(before.model, task, folder, progress)
    found = search_architecture(
        replace(task, model=before.model),
        Budget(parameters=step.parameters, bytes=step.bytes, macs=step.macs, latency_ms=step.latency_ms),
        table=table,
        short_epochs=step.epochs,
        epochs=0,  # what follows is the recipe's own
        importance=step.importance,
        multiple=step.multiple if step.multiple > 1 or table is None else None,
        min_width=step.min_width,
        keep=step.keep,
        pruned=before.pruned,
        folder=folder,
        seed=seed,
        progress=progress,
    )
    rounds = max((each.round for each in found.trace), default=0)
    text = (
        f"in {rounds} rounds {len(found.trace)} networks were trained for {step.epochs} epoch(s) and evaluated on "
        f"validation; {found.unit} are {found.cost:.6g} of at most {found.budget:.6g}"
    )
    return replace(found.compressed, notes=(*found.compressed.notes, Note("TP603", "note", None, text)))


def _timed(model: nn.Module, task: Task, folder: Path | None, progress: Progress) -> LatencyTable:
    """What the layers of ``model`` take here, measured once for a folder: a search that goes on goes by the same."""
    path = None if folder is None else folder / "latency.json"
    if path is not None:
        with contextlib.suppress(ArtifactError):  # not there yet, or damaged
            return read_latency_table(path)
    table = measure_layers(task.name, model, task.example_inputs, watch=progress)
    if path is not None:
        write_latency_table(path, table)
    return table


def factorized(step: Factorize, before: Compressed, task: Task) -> Compressed:
    """``before`` with pairs of layers as ``step`` says."""
    return factorize_model(
        before.model,
        task.example_inputs,
        energy=step.energy,
        parameters=step.parameters,
        separable=bool(step.separable),
        keep=step.keep,
    )


def shallower(
    step: Layers, before: Compressed, task: Task, seed: int, progress: Progress = silent
) -> Compressed:
    """``before`` without the layers that ``step`` removes; their effect is that on the outputs for some samples.

    A layer of a list that became shorter has another name, and its pruned zeros are known by that.
    """
    after = remove_layers(
        before.model,
        task.example_inputs,
        count=step.count,
        ratio=step.ratio,
        by=step.by,
        calibration=_samples(task, seed).inputs,
        keep=step.keep,
        progress=progress,
    )
    pruned = {stock_name(before.model, name) for name in before.pruned}
    return replace(after, pruned=names_now(after.model, pruned))


def _budget(step: Structured, model: nn.Module, task: Task) -> Budget:
    if step.latency_ms is not None:
        return Budget(latency_ms=step.latency_ms, measure=onnx_latency(model, task.example_inputs))
    return Budget(parameters=step.parameters, bytes=step.bytes, macs=step.macs)


def _samples(task: Task, seed: int) -> Split:
    samples = task.train if task.train is not None else task.validation
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples.take(order[:_SAMPLES])


def _batches(samples: Split) -> list[Split]:
    return [samples.take(slice(start, start + _BATCH)) for start in range(0, len(samples), _BATCH)]


def _loss_on(task: Task, part: Split) -> Callable[[nn.Module], Tensor]:
    assert task.loss is not None
    loss = task.loss
    return lambda model: loss(model(*part.inputs), part.targets)
