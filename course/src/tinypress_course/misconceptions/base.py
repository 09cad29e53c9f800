"""What a misconception is: a wrong implementation that people write, and the sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinypress_course.checks.base import Answer, Case
from tinypress_course.models import Plain


@dataclass(frozen=True)
class Misconception:
    """``implementation`` stands where the learner's ``function`` would; it answers the same inputs wrongly.

    ``says`` names the mistake to the learner without giving the answer. ``compares`` are the keys of the
    probe's answer that must be equal for a match; all of them where it is empty. Where right answers differ
    among themselves, ``reads`` tells what of an answer is compared instead; what it reads as from the answer of
    ``right`` as well explains nothing.
    """

    function: str
    name: str
    says: str
    implementation: Callable[..., Any]
    compares: tuple[str, ...] = ()
    reads: Callable[[Case, Answer], Plain] | None = None
    right: Callable[..., Any] | None = None
