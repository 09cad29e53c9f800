"""What every loss refuses: settings out of range, tensors that do not fit together."""

from __future__ import annotations

import math

from torch import Tensor

from tinypress.errors import DataError, InputError


def require_positive(call: str, **settings: float) -> None:
    """Raise InputError for a setting that is not a positive finite number."""
    for name, value in settings.items():
        if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
            raise InputError(call, f"{name} is {value!r}", "Give a positive number")


def require_weight(call: str, **settings: float) -> None:
    """Raise InputError for a setting that is not a finite number from 0."""
    for name, value in settings.items():
        if isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
            raise InputError(call, f"{name} is {value!r}", "Give a number from 0")


def require_alike(call: str, student: Tensor, teacher: Tensor, least: int, remedy: str) -> None:
    """Raise InputError unless both are of one shape with ``least`` dimensions or more."""
    if student.shape != teacher.shape or student.dim() < least:
        raise InputError(
            f"{call}(student {tuple(student.shape)}, teacher {tuple(teacher.shape)})",
            "student and teacher differ in shape or have too few dimensions",
            remedy,
        )


def require_pairs(call: str, student: Tensor, teacher: Tensor, least: int) -> None:
    """Raise InputError unless both have the same ``least`` samples or more, of any width."""
    given = f"{call}(student {tuple(student.shape)}, teacher {tuple(teacher.shape)})"
    if student.dim() < 2 or teacher.dim() < 2 or len(student) != len(teacher):
        raise InputError(given, "they are not of the same samples", "Give [B, ...] of one batch")
    if len(student) < least:
        raise InputError(given, f"relations need {least} samples", "Use a larger batch_size")


def require_labels(call: str, labels: Tensor, samples: int, classes: int) -> None:
    """Raise DataError unless ``labels`` are [samples] indices of ``classes``."""
    wrong = labels.is_floating_point() or labels.shape != (samples,)
    if wrong or (samples and not 0 <= int(labels.min()) <= int(labels.max()) < classes):
        raise DataError(
            f"{call}(labels {tuple(labels.shape)})",
            f"labels are not one class index in 0..{classes - 1} for each of {samples} samples",
            "Check the targets",
        )
