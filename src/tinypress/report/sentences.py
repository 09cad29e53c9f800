"""Sentences made from a receipt: what the chosen artifact saves and costs, what was done, what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tinypress.receipt import Candidate, Drop, Finding, Receipt, Tolerance
from tinypress.report.words import (
    NOT_MEASURED,
    byte_size,
    count,
    drop_number,
    drop_span,
    figures,
    percent,
    ratio,
    smaller,
    tolerance_words,
)


def saving(receipt: Receipt, candidate: Candidate) -> str:
    """What ``candidate`` saves and costs against the baseline: one sentence without its full stop."""
    if candidate.name == receipt.baseline.name:
        return "This is the baseline itself: nothing is saved and nothing is lost"
    return f"{gain(receipt, candidate)}, {cost(receipt, candidate)}"


def gain(receipt: Receipt, candidate: Candidate) -> str:
    """Size and time: '14.2× smaller than the baseline (36 kB instead of 512 kB), 0.48× its time'."""
    ours, theirs = candidate.artifact.bytes, receipt.baseline.artifact.bytes
    if ours == theirs:
        size = f"The size of the baseline ({byte_size(ours)})"
    else:
        size = f"{smaller(ours, theirs)} than the baseline ({byte_size(ours)} instead of {byte_size(theirs)})"
    if candidate.latency_ms is None:
        return f"{size}, its time {NOT_MEASURED}"
    return f"{size}, {ratio(candidate.latency_ms.ratio_to_baseline.value)} its time"


def cost(receipt: Receipt, candidate: Candidate) -> str:
    """The drop with its interval and its verdict in words."""
    drop = candidate.drop
    if drop is None:
        return f"drop in {receipt.metric} {NOT_MEASURED}"
    number = drop_number(drop.value, drop, receipt.tolerance)
    unit = "points" if drop.unit == "points" else f"of {receipt.metric}"
    ends = drop_span(drop, receipt.tolerance)
    return f"drop {number} {unit} {ends} – {verdict_words(receipt, candidate, drop)}"


def verdict_words(receipt: Receipt, candidate: Candidate, drop: Drop) -> str:
    """What the verdict says about the tolerance, with the number of samples it rests on."""
    limit = f"the tolerance of {tolerance_words(receipt.tolerance, receipt.metric)}"
    quality = candidate.quality
    basis = f"{count(quality.samples)} samples"
    if quality.groups != quality.samples:
        basis += f" in {count(quality.groups)} {'group' if quality.groups == 1 else 'groups'}"
    if drop.verdict == "within":
        return f"within {limit}, on {basis}"
    if drop.verdict == "beyond":
        return f"beyond {limit}, on {basis}"
    return f"cannot tell with {basis} whether that is within {limit}"


def samples_words(drop: Drop) -> str:
    """How many test samples would settle the verdict, or nothing where it is settled or not known."""
    if drop.verdict != "cannot tell" or drop.samples_needed is None:
        return ""
    return f"about {count(drop.samples_needed)} test samples would settle it"


def step_words(step: dict[str, Any]) -> str:
    """One step of a recipe: the technique, then its settings in the order they stand in; unset ones are left out."""
    settings = [
        _setting(name, value) for name, value in step.items() if name != "technique" and value is not None
    ]
    technique = _plain(str(step.get("technique", "step")))
    return f"{technique}: {', '.join(settings)}" if settings else technique


def _setting(name: str, value: Any) -> str:
    if name == "sparsity" and isinstance(value, int | float):
        return f"sparsity {percent(value, 0 if round(100 * value) == round(100 * value, 6) else 1)}"
    return f"{_plain(name)} {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return figures(value, 6).rstrip("0").rstrip(".") if value % 1 else count(int(value))
    if isinstance(value, dict):
        return "(" + ", ".join(_setting(str(key), inner) for key, inner in value.items()) + ")"
    if isinstance(value, list | tuple):
        return " and ".join(_value(inner) for inner in value) if value else "none"
    return str(value)


def _plain(name: str) -> str:
    return name.replace("_", " ")


@dataclass(frozen=True)
class FindingGroup:
    """Findings of equal code, severity and text: told once, with all the layers and artifacts they hold for."""

    code: str
    severity: str
    text: str
    layers: tuple[str, ...]
    candidates: tuple[str, ...]


def grouped_findings(receipt: Receipt) -> tuple[FindingGroup, ...]:
    """All findings of the run and of its candidates, equal texts told once, warnings before notes."""
    holders: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for name, finding in _all_findings(receipt):
        key = (finding.severity, finding.code, finding.text)
        layers, candidates = holders.setdefault(key, ({}, {}))
        if finding.layer is not None:
            layers[finding.layer] = None
        if name is not None:
            candidates[name] = None
    groups = [
        FindingGroup(code, severity, text, tuple(layers), tuple(candidates))
        for (severity, code, text), (layers, candidates) in holders.items()
    ]
    return tuple(sorted(groups, key=lambda group: group.severity != "warning"))


def _all_findings(receipt: Receipt) -> Iterable[tuple[str | None, Finding]]:
    for finding in receipt.findings:
        yield None, finding
    for candidate in receipt.candidates:
        for finding in candidate.all_findings:
            yield candidate.name, finding


@dataclass(frozen=True)
class Missing:
    """A quantity that is absent from one candidate, with the texts of the findings that say why."""

    candidate: str
    quantity: str
    reasons: tuple[str, ...]


def missing_numbers(receipt: Receipt) -> tuple[Missing, ...]:
    """Every number that is ``None`` though it could have been measured, each with its reason.

    A finding is the reason when it speaks of the whole artifact and its text names the quantity.
    """
    found = []
    for candidate in receipt.candidates:
        for quantity, words, value in (
            ("latency", ("latency", "timed"), candidate.latency_ms),
            ("peak memory", ("memory",), candidate.peak_memory_bytes),
            ("energy", ("energy",), candidate.energy_mj),
            ("MACs", ("macs",), candidate.macs),
        ):
            if value is None:
                found.append(Missing(candidate.name, quantity, _reasons(candidate.findings, words)))
        if candidate.drop is None and candidate.role != "baseline":
            found.append(Missing(candidate.name, "drop", _reasons(candidate.findings, ("drop",))))
    return tuple(found)


def _reasons(findings: tuple[Finding, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    whole = (finding.text for finding in findings if finding.layer is None)
    return tuple(text for text in whole if any(word in text.lower() for word in words))


def tolerance_sentence(tolerance: Tolerance, metric: str) -> str:
    """What the verdict words mean for this tolerance."""
    limit = tolerance_words(tolerance, metric)
    return (
        f"Within: the whole 95 % interval of the drop lies at or under {limit}. "
        f"Beyond: all of it lies over. Cannot tell: the tolerance lies inside the interval."
    )
