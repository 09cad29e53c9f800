"""Chooses on validation and bytes, never on test."""

from __future__ import annotations

from collections.abc import Sequence

from tinypress.receipt import Candidate


def pareto(candidates: Sequence[Candidate], higher_is_better: bool) -> tuple[str, ...]:
    """Names of those that no other beats in bytes and in validation at once, smallest first. Controls are left out."""
    front: list[str] = []
    best: float | None = None
    for candidate in sorted(
        _open(candidates), key=lambda c: (c.artifact.bytes, -_good(c, higher_is_better), c.name)
    ):
        value = _good(candidate, higher_is_better)
        if best is None or value > best:
            front.append(candidate.name)
            best = value
    return tuple(front)


def choose(candidates: Sequence[Candidate], higher_is_better: bool, tolerance: float) -> str:
    """The smallest file whose validation is at most ``tolerance`` (in the metric's own unit) below the baseline."""
    baseline = next(c for c in candidates if c.role == "baseline")
    least = _good(baseline, higher_is_better) - tolerance
    # a hair of slack, so that 3.0 points lost count as 3 points
    fits = [c for c in _open(candidates) if _good(c, higher_is_better) >= least - 1e-9]
    return min(fits, key=lambda c: (c.artifact.bytes, -_good(c, higher_is_better), c.name)).name


def _open(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.role != "control"]


def _good(candidate: Candidate, higher_is_better: bool) -> float:
    return candidate.validation.value if higher_is_better else -candidate.validation.value
