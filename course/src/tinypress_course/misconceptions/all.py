"""Every known mistake."""

from __future__ import annotations

from tinypress_course.misconceptions import (
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
from tinypress_course.misconceptions.base import Misconception

ALL_MISCONCEPTIONS: tuple[Misconception, ...] = (
    *size.MISCONCEPTIONS,
    *pruning.MISCONCEPTIONS,
    *quantization.MISCONCEPTIONS,
    *distillation.MISCONCEPTIONS,
    *teaching.MISCONCEPTIONS,
    *importance.MISCONCEPTIONS,
    *neurons.MISCONCEPTIONS,
    *comparison.MISCONCEPTIONS,
    *pipeline.MISCONCEPTIONS,
)
