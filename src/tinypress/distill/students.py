"""Untrained students: the teacher's own constructor with smaller numbers, or a network of the user's.

A student that is the teacher with neurons removed is the pipeline's step ``shrink``; one that has the teacher's place
and untrained weights is its step ``student``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Change, Compressed


def scale_student(
    build: Callable[..., nn.Module],
    settings: Mapping[str, Any],
    multipliers: Mapping[str, float],
    teacher: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    multiple_of: int = 1,
    seed: int = 0,
) -> Compressed:
    """A new network of ``build(**settings)`` with some of its settings multiplied (Howard et al. 2017,
    arXiv:1704.04861, section 3.3: the width multiplier; a depth multiplier works alike).

    Args:
        settings: what the teacher was built with, such as ``{"widths": (64, 128), "blocks": 8, "classes": 10}``.
        multipliers: setting → factor above 0 for whole numbers or sequences of them, such as ``{"widths": 0.5}``.
            Each becomes the nearest multiple of ``multiple_of`` (the larger of two), at least one.
        teacher: its output's shape on ``example_inputs`` is the one that the student must have.
        multiple_of: 8 suits the kernels of most processors.

    Returns:
        The student, untrained, from ``seed`` alone; a change for every setting that became another.

    Raises:
        InputError: a multiplier names no setting, is not above 0, or stands for something that is no whole number.
        ModelError: the student cannot be built or run, or its output has another shape.
    """
    name = getattr(build, "__name__", type(build).__name__)
    call = f"scale_student({name}, {dict(multipliers)})"
    if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
        raise InputError(call, f"multiple_of is {multiple_of!r}", "Give a whole number from 1")
    scaled = dict(settings)
    for setting, factor in multipliers.items():
        if setting not in settings:
            raise InputError(call, f"there is no setting {setting!r}", f"Choose from {sorted(settings)}")
        if isinstance(factor, bool) or not (math.isfinite(factor) and factor > 0):
            raise InputError(call, f"the factor of {setting!r} is {factor!r}", "Give a number above 0")
        scaled[setting] = _scaled(call, setting, settings[setting], factor, multiple_of)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            student = build(**scaled)
        except Exception as error:
            raise ModelError(
                call,
                f"{name}(**{scaled}) failed: {type(error).__name__}: {error}",
                "Choose other multipliers",
            ) from error
    changes = tuple(
        Change("", f"setting {setting}", str(settings[setting]), str(scaled[setting]))
        for setting in multipliers
        if scaled[setting] != settings[setting]
    )
    checked = own_student(student, teacher, example_inputs)
    return Compressed(checked.model, changes)


def own_student(student: nn.Module, teacher: nn.Module, example_inputs: tuple[Tensor, ...]) -> Compressed:
    """A copy of ``student``, a network of any kind, once it is known to stand in for ``teacher``.

    Raises:
        InputError: it is no ``nn.Module``.
        ModelError: it cannot be run on ``example_inputs``, or its output has another shape or is not finite.
    """
    call = f"own_student({type(student).__name__})"
    if not isinstance(student, nn.Module):
        raise InputError(call, "the student is no torch.nn.Module", "Give the network itself")
    model = copy.deepcopy(student).eval()
    with torch.no_grad():
        try:
            said = model(*example_inputs)
        except Exception as error:
            lines = str(error).splitlines()
            raise ModelError(
                call,
                f"it cannot be run ({type(error).__name__}: {lines[0] if lines else ''})",
                "Give it the same inputs",
            ) from error
        asked = copy.deepcopy(teacher).eval()(*example_inputs)
    if not isinstance(said, Tensor) or said.shape != asked.shape:
        shape = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
        raise ModelError(
            call, f"its output is {shape}, the teacher's {tuple(asked.shape)}", "Give it the teacher's head"
        )
    if not bool(torch.isfinite(said).all()):
        raise ModelError(call, "its output is NaN or infinite", "Check how it is initialised")
    return Compressed(model)


def _scaled(call: str, setting: str, value: object, factor: float, multiple: int) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_scaled(call, setting, item, factor, multiple) for item in value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(call, f"{setting!r} holds {value!r}, no whole number", "Multiply widths or depths")
    return max(1, math.floor(value * factor / multiple + 0.5)) * multiple
