"""Chooses on validation and bytes, never on test; of a network in integers also on whether they save its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinypress.receipt import Candidate


@dataclass(frozen=True)
class PassedOver:
    """A file in integers that would have been chosen by its bytes, and the float file that is faster."""

    candidate: Candidate
    faster: Candidate


def pareto(candidates: Sequence[Candidate], higher_is_better: bool) -> tuple[str, ...]:
    """Names of those that no other beats in bytes and in validation at once, smallest first. Controls are left out."""
    front: list[str] = []
    best: float | None = None
    for candidate in sorted(_open(candidates), key=lambda c: _by_size(c, higher_is_better)):
        value = _good(candidate, higher_is_better)
        if best is None or value > best:
            front.append(candidate.name)
            best = value
    return tuple(front)


def choose(
    candidates: Sequence[Candidate], higher_is_better: bool, tolerance: float, max_bytes: int | None = None
) -> str:
    """The smallest file whose validation is at most ``tolerance`` (in the metric's own unit) below the baseline.

    A file that computes in integers and is slower than the float file of the same network is left out, unless
    ``max_bytes`` leaves that float file out first. Where no file within the tolerance has ``max_bytes`` or fewer, the
    smallest is chosen.
    """
    fits = _fits(candidates, higher_is_better, tolerance, max_bytes)
    slow = {each.candidate.name for each in _slower(fits, max_bytes)}
    left = [c for c in fits if c.name not in slow]
    return min(left, key=lambda c: _by_size(c, higher_is_better)).name


def passed_over(
    candidates: Sequence[Candidate], higher_is_better: bool, tolerance: float, max_bytes: int | None = None
) -> tuple[PassedOver, ...]:
    """Files in integers that are smaller than the chosen one and left out for their time, smallest first."""
    fits = _fits(candidates, higher_is_better, tolerance, max_bytes)
    name = choose(candidates, higher_is_better, tolerance, max_bytes)
    chosen = next(c for c in fits if c.name == name)
    most = _by_size(chosen, higher_is_better)
    found = [each for each in _slower(fits, max_bytes) if _by_size(each.candidate, higher_is_better) < most]
    return tuple(sorted(found, key=lambda each: _by_size(each.candidate, higher_is_better)))


def meets(candidate: Candidate, max_bytes: int | None) -> bool:
    """Whether the file is within the limit."""
    return max_bytes is None or candidate.artifact.bytes <= max_bytes


def _fits(
    candidates: Sequence[Candidate], higher_is_better: bool, tolerance: float, max_bytes: int | None
) -> list[Candidate]:
    baseline = next(c for c in candidates if c.role == "baseline")
    least = _good(baseline, higher_is_better) - tolerance
    # a hair of slack, so that 3.0 points lost count as 3 points
    kept = [c for c in _open(candidates) if _good(c, higher_is_better) >= least - 1e-9]
    return [c for c in kept if meets(c, max_bytes)] or kept


def _slower(fits: Sequence[Candidate], max_bytes: int | None) -> list[PassedOver]:
    """Those in integers whose float file, in the same runtime where there is one, is faster beyond the intervals."""
    found: list[PassedOver] = []
    if not any(meets(candidate, max_bytes) for candidate in fits):
        return found  # bytes are what is missing
    for candidate in fits:
        if not any(_in_integers(step) for step in candidate.recipe):
            continue
        steps = _in_float(candidate)
        twins = [other for other in fits if other is not candidate and list(other.recipe) == steps]
        own = [twin for twin in twins if twin.artifact.runtime == candidate.artifact.runtime]
        faster = next((twin for twin in own or twins if _is_faster(twin, candidate)), None)
        if faster is not None:
            found.append(PassedOver(candidate, faster))
    return found


def _in_integers(step: Mapping[str, Any]) -> bool:
    """Whether the step promises arithmetic in integers: who asks for weights alone, or for few bits, asks for bytes."""
    if step.get("technique") not in _QUANTIZING or step.get("weights_only") or step.get("scheme") == "affine":
        return False
    layers = dict(step.get("layers") or {})
    return 8 in (layers.values() if layers else (step.get("bits", 8),))


def _in_float(candidate: Candidate) -> list[dict[str, Any]]:
    return [step for step in candidate.recipe if step.get("technique") not in _QUANTIZING]


_QUANTIZING = ("quantize", "qat")


def _is_faster(one: Candidate, other: Candidate) -> bool:
    """Beyond the intervals of both ratios to the baseline's time; the baseline's own is 1."""
    if one.latency_ms is None or other.latency_ms is None:
        return False
    high = 1.0 if one.role == "baseline" else one.latency_ms.ratio_to_baseline.high
    return high < other.latency_ms.ratio_to_baseline.low


def _by_size(candidate: Candidate, higher_is_better: bool) -> tuple[int, float, str]:
    return candidate.artifact.bytes, -_good(candidate, higher_is_better), candidate.name


def _open(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.role != "control"]


def _good(candidate: Candidate, higher_is_better: bool) -> float:
    return candidate.validation.value if higher_is_better else -candidate.validation.value
