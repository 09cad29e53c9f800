"""Every promise of the module."""

from __future__ import annotations

from tinypress_course.checks import (
    comparison,
    distillation,
    importance,
    neurons,
    pipeline,
    pruning,
    quantization,
    size,
    teaching,
)
from tinypress_course.checks.base import Check

ALL_CHECKS: tuple[Check, ...] = (
    *size.CHECKS,
    *pruning.CHECKS,
    *quantization.CHECKS,
    *distillation.CHECKS,
    *teaching.CHECKS,
    *importance.CHECKS,
    *neurons.CHECKS,
    *comparison.CHECKS,
    *pipeline.CHECKS,
)
