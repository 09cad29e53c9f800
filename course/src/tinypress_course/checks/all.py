"""Every promise of the module."""

from __future__ import annotations

from tinypress_course.checks import pruning, quantization, size
from tinypress_course.checks.base import Check

ALL_CHECKS: tuple[Check, ...] = (*size.CHECKS, *pruning.CHECKS, *quantization.CHECKS)
