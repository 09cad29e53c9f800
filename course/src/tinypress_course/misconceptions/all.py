"""Every known mistake."""

from __future__ import annotations

from tinypress_course.misconceptions import pruning, quantization, size
from tinypress_course.misconceptions.base import Misconception

ALL_MISCONCEPTIONS: tuple[Misconception, ...] = (
    *size.MISCONCEPTIONS,
    *pruning.MISCONCEPTIONS,
    *quantization.MISCONCEPTIONS,
)
