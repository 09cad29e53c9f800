"""The choice: the smallest file that keeps its quality on validation; test and controls have no say."""

from __future__ import annotations

from typing import Literal

from tinypress.press.choose import choose, pareto
from tinypress.receipt import Artifact, Candidate, Quality, Validation

Role = Literal["baseline", "candidate", "control"]


def candidate(
    name: str, bytes_: int, validation: float, test: float = 0.5, role: Role = "candidate"
) -> Candidate:
    return Candidate(
        name=name,
        role=role,
        about="",
        recipe=(),
        artifact=Artifact(path=f"artifacts/{name}.onnx", runtime="onnxruntime", bytes=bytes_, sha256=""),
        parameters=1,
        nonzero_parameters=1,
        macs=1,
        latency_ms=None,
        peak_memory_bytes=None,
        energy_mj=None,
        validation=Validation(value=validation, samples=10, groups=10),
        quality=Quality(value=test, low=0, high=1, samples=10, groups=10, evaluated_in="onnxruntime"),
        drop=None,
        seconds=0.0,
        layers=(),
    )


BASELINE = candidate("baseline", 1000, 0.90, role="baseline")


def test_the_smallest_within_tolerance_on_validation_is_chosen() -> None:
    found = [
        BASELINE,
        candidate("half", 500, 0.89),
        candidate("third", 300, 0.88),
        candidate("tiny", 100, 0.8),
    ]
    assert choose(found, True, 0.01) == "half"
    assert choose(found, True, 0.02) == "third"  # exactly on the tolerance, whatever 0.90 - 0.88 rounds to
    assert choose(found, True, 0.2) == "tiny"
    assert choose(found, True, 0.0) == "baseline"


def test_what_the_test_split_says_changes_nothing() -> None:
    lucky = candidate("lucky", 100, 0.70, test=0.99)
    steady = candidate("steady", 300, 0.90, test=0.10)
    assert choose([BASELINE, lucky, steady], True, 0.01) == "steady"
    assert pareto([BASELINE, candidate("worse", 400, 0.80, test=0.99), steady], True) == ("steady",)


def test_a_control_is_never_chosen_nor_on_the_front() -> None:
    control = candidate("control", 100, 0.95, role="control")
    found = [BASELINE, control, candidate("half", 500, 0.90)]
    assert choose(found, True, 0.01) == "half"
    assert pareto(found, True) == ("half",)


def test_the_front_goes_from_the_smallest_up() -> None:
    found = [
        BASELINE,
        candidate("tiny", 100, 0.70),
        candidate("twin", 100, 0.70),
        candidate("beaten", 200, 0.65),
        candidate("good", 400, 0.89),
        candidate("equal", 500, 0.89),
        candidate("better", 900, 0.92),
    ]
    assert pareto(found, True) == ("tiny", "good", "better")


def test_an_error_is_better_where_it_is_smaller() -> None:
    base = candidate("baseline", 1000, 0.30, role="baseline")
    found = [base, candidate("half", 500, 0.33), candidate("tiny", 100, 0.60)]
    assert choose(found, False, 0.05) == "half"
    assert choose(found, False, 0.01) == "baseline"
    assert pareto(found, False) == ("tiny", "half", "baseline")


def test_of_equal_files_the_better_is_chosen() -> None:
    found = [BASELINE, candidate("a", 500, 0.90), candidate("b", 500, 0.91), candidate("c", 500, 0.91)]
    assert choose(found, True, 0.05) == "b"
