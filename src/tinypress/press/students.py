"""The step ``student``: an untrained network in place of the trained one."""

from __future__ import annotations

import torch
from torch import nn

from tinypress.errors import ModelError, TaskError
from tinypress.facts import Compressed
from tinypress.layers import owned_tensors, rebuild, structure
from tinypress.press.bench import Bench
from tinypress.press.step import Student
from tinypress.shrink import shrink_model
from tinypress.task import Task


def untrained(step: Student, bench: Bench) -> Compressed:
    """An untrained network as small as the trained one would be after ``shrink``."""
    assert bench.task.build is not None
    smaller = shrink_model(bench.task.model, step.ratio, bench.task.example_inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        built = _built(step, bench.task)
        student = rebuild(built, structure(smaller.model))
        as_built = dict(built.named_modules())
        for name, layer in student.named_modules():
            _initialise(layer, as_built[name], f"student(ratio={step.ratio})")
    return Compressed(student, smaller.changes, smaller.notes)


def _initialise(layer: nn.Module, as_built: nn.Module, call: str) -> None:
    """Start a layer that became smaller from new random numbers; one of full size keeps those of build()."""
    shapes = {name: x.shape for name, x in owned_tensors(layer).items()}
    if shapes == {name: x.shape for name, x in owned_tensors(as_built).items()}:
        return
    reset = getattr(layer, "reset_parameters", None)
    if not callable(reset):
        raise ModelError(
            call,
            f"{type(layer).__name__} has parameters but no reset_parameters()",
            "Add that method, so that a smaller network can be initialised",
        )
    reset()


def _built(step: Student, task: Task) -> nn.Module:
    call = f"student(ratio={step.ratio}) of task {task.name!r}"
    assert task.build is not None
    try:
        model = task.build()
    except Exception as error:
        raise TaskError(call, f"build() failed: {type(error).__name__}: {error}", "Mend it") from error
    if not isinstance(model, nn.Module):
        raise TaskError(call, f"build() returned a {type(model).__name__}", "Return the untrained network")
    return model
