"""Refuses, before any work, what a run could only fail on later."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tinypress.errors import InputError, ModelError, RecipeError, TaskError, TinypressError
from tinypress.graph.forward import check_example, forward_eval
from tinypress.layers import copy_model
from tinypress.measure.quality import NamedMetric, resolve_metric
from tinypress.press.recipe import Recipe, check_order
from tinypress.task import Task


def check_arguments(
    task: Task, recipes: Sequence[Recipe], out: Path, numbers: dict[str, int], tolerance: float | None
) -> None:
    """Check the kinds and ranges of what ``press`` was given; ``numbers`` holds whole ones with their least value.

    Raises:
        InputError, TaskError, RecipeError: something is of the wrong kind or out of range.
    """
    call = f"press({getattr(task, 'name', task)!r})"
    if not isinstance(task, Task):
        raise TaskError(call, f"the task is a {type(task).__name__}", "Give a tinypress.Task")
    given: object = recipes
    if not isinstance(given, tuple | list) or not all(isinstance(recipe, Recipe) for recipe in given):
        raise RecipeError(call, "the recipes are not a tuple or list of Recipe", "See tinypress.Recipe")
    if not isinstance(out, Path):
        raise InputError(call, f"out is {out!r}, not a Path", f"Give pathlib.Path({str(out)!r})")
    for name, value in numbers.items():
        least = 0 if name == "seed" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(
                f"press({name}={value!r})", "that is out of range", f"Give a whole number from {least}"
            )
    for what, allowed in ((f"press(tolerance={tolerance!r})", tolerance), (call, task.tolerance)):
        number = isinstance(allowed, int | float) and not isinstance(allowed, bool)
        if allowed is not None and not (number and math.isfinite(allowed) and allowed >= 0):
            raise InputError(
                what,
                f"the tolerance is {allowed!r}",
                "Give points, or the metric's unit, from 0: such as 1.0",
            )


def check_recipes(task: Task, recipes: Sequence[Recipe], names: Sequence[str]) -> None:
    """Check that there is one baseline and that the artifacts' ``names`` and the controls fit.

    Raises:
        RecipeError: they do not.
    """
    call = f"press({task.name!r}, {len(recipes)} recipes)"
    roles = [recipe.role for recipe in recipes]
    if roles.count("baseline") != 1 or recipes[roles.index("baseline")].steps:
        raise RecipeError(
            call, "there must be one baseline, and it has no steps", "Give one recipe the role 'baseline'"
        )
    if len(set(names)) != len(names):
        raise RecipeError(call, f"two artifacts would have one name: {sorted(names)}", "Rename a recipe")
    for recipe in recipes:
        check_order(call, recipe)
        if recipe.control_of is not None and recipe.control_of not in names:
            raise RecipeError(
                call, f"{recipe.name!r} is a control of unknown {recipe.control_of!r}", "Name a recipe"
            )


def check_model(task: Task) -> None:
    """Check that the weights are finite float32 and that the network answers its example with one tensor.

    Raises:
        ModelError: it does not.
    """
    call = f"press({task.name!r}, {type(task.model).__name__})"
    for name, parameter in task.model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                call, f"parameter {name!r} holds NaN or infinity", "Train again or load sound weights"
            )
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ModelError(
                call,
                f"parameter {name!r} is {str(parameter.dtype).removeprefix('torch.')}, and the shipped file "
                "computes in float32",
                "Give model.float(), and float32 inputs",
            )
    model = copy_model(task.model)
    outputs = check_example(call, model, task.example_inputs)
    returned = forward_eval(model, task.example_inputs)
    if not isinstance(returned, Tensor):
        raise ModelError(
            call,
            f"forward() returns a {type(returned).__name__} with {len(outputs)} tensors in it, not a tensor",
            "Wrap it in a module that returns the one to be judged",
        )


def metric_of(task: Task) -> NamedMetric:
    """The metric of ``task``; what a user's function raises becomes an error that names it.

    Raises:
        InputError: there is no such metric.
    """
    metric = resolve_metric(task.metric, task.higher_is_better)
    if isinstance(task.metric, str):
        return metric

    def guarded(outputs: Tensor, targets: Tensor) -> float:
        try:
            return metric.function(outputs, targets)
        except TinypressError:
            raise
        except Exception as error:
            raise InputError(
                f"{metric.name}(outputs={tuple(outputs.shape)}, targets={tuple(targets.shape)})",
                f"the metric failed: {type(error).__name__}: {error}",
                "Mend the function; resamples may lack a class",
            ) from error

    return dataclasses.replace(metric, function=guarded)
