"""Sentences: what was saved, what it cost, what was done, what was found."""

import pytest

from report.sample import sample_receipt
from tinypress.receipt import Candidate, Drop, Finding, Receipt, Tolerance
from tinypress.report.sentences import grouped_findings, missing_numbers, samples_words, saving, step_words


def changed(receipt: Receipt, name: str, **update: object) -> Receipt:
    """The receipt with one candidate changed."""
    candidates = tuple(c.model_copy(update=update) if c.name == name else c for c in receipt.candidates)
    return receipt.model_copy(update={"candidates": candidates})


def told(receipt: Receipt, name: str) -> str:
    return saving(receipt, receipt.candidate(name))


def with_drop(name: str, **update: object) -> Candidate:
    candidate = sample_receipt().candidate(name)
    assert candidate.drop is not None
    return candidate.model_copy(update={"drop": candidate.drop.model_copy(update=update)})


def test_the_chosen_artifact_in_one_sentence() -> None:
    assert told(sample_receipt(), "shrink+distill+int8") == (
        "43.3× smaller than the baseline (11.1 kB instead of 479 kB), 0.21× its time, drop 2.6 points [1.7, 3.5] – "
        "cannot tell with 1,917 samples in 70 groups whether that is within the tolerance of 3 points"
    )


def test_each_verdict_has_its_words() -> None:
    receipt = sample_receipt()
    assert told(receipt, "int8").endswith("– within the tolerance of 3 points, on 1,917 samples in 70 groups")
    assert "– beyond the tolerance of 3 points" in told(receipt, "control: student alone")


def test_what_was_not_measured_is_said() -> None:
    receipt = sample_receipt()
    assert "its time not measured" in told(receipt, "prune (archive)")
    assert told(changed(receipt, "int8", drop=None), "int8").endswith("drop in accuracy not measured")


def test_the_baseline_saves_nothing() -> None:
    assert "nothing is saved" in told(sample_receipt(), "baseline")


def test_a_larger_file_is_called_larger() -> None:
    receipt = sample_receipt()
    artifact = receipt.candidate("int8").artifact.model_copy(update={"bytes": 957_430})
    text = told(changed(receipt, "int8", artifact=artifact), "int8")
    assert text.startswith("2.00× larger than the baseline (957 kB instead of 479 kB)")
    assert told(receipt, "prune").startswith("The size of the baseline (479 kB)")


def test_samples_without_groups_are_not_called_groups() -> None:
    receipt = sample_receipt()
    quality = receipt.candidate("int8").quality.model_copy(update={"groups": 1917})
    assert told(changed(receipt, "int8", quality=quality), "int8").endswith("on 1,917 samples")


def test_a_metric_of_its_own_unit_is_named() -> None:
    receipt = sample_receipt().model_copy(
        update={"metric": "mse", "tolerance": Tolerance(value=0.05, unit="metric"), "higher_is_better": False}
    )
    drop = Drop(
        value=0.0312, low=0.011, high=0.0514, unit="metric", method="bootstrap", verdict="cannot tell"
    )
    text = told(changed(receipt, "int8", drop=drop), "int8")
    assert "drop 0.0312 of mse [0.0110, 0.0514]" in text
    assert text.endswith("the tolerance of 0.05 of mse")


def test_samples_that_would_settle_it() -> None:
    undecided = with_drop("shrink+distill+int8").drop
    assert undecided is not None
    assert samples_words(undecided) == "about 5,230 test samples would settle it"
    settled = with_drop("int8", samples_needed=99).drop
    assert settled is not None
    assert samples_words(settled) == ""


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (
            {"technique": "magnitude", "sparsity": 0.8, "scope": "global"},
            "magnitude: sparsity 80 %, scope global",
        ),
        ({"technique": "magnitude", "sparsity": 0.875}, "magnitude: sparsity 87.5 %"),
        ({"technique": "quantize", "bits": 8, "per_channel": True}, "quantize: bits 8, per channel yes"),
        ({"technique": "recover", "epochs": None}, "recover"),
        ({"technique": "distill", "temperature": 4.0, "alpha": 0.05}, "distill: temperature 4, alpha 0.05"),
        ({"technique": "x", "layers": ["a", "b"], "inner": {"k": 2}}, "x: layers a and b, inner (k 2)"),
    ],
)
def test_a_step_in_words(step: dict[str, object], text: str) -> None:
    assert step_words(step) == text


def test_equal_findings_are_told_once_with_all_they_hold_for() -> None:
    groups = grouped_findings(sample_receipt())
    zeros = next(group for group in groups if group.code == "TP101")
    assert zeros.candidates == ("prune", "prune+int8", "control: random scores")
    head = next(group for group in groups if group.code == "TP104")
    assert head.layers == ("head",)
    assert [group.severity for group in groups] == ["warning"] * 2 + ["note"] * 4


def test_every_missing_number_has_its_reason() -> None:
    missing = {(m.candidate, m.quantity): m.reasons for m in missing_numbers(sample_receipt())}
    assert set(missing) == {
        ("prune (archive)", "latency"),
        ("prune (archive)", "peak memory"),
        ("prune+int8 (archive)", "peak memory"),
    }
    (reason,) = missing["prune (archive)", "latency"]
    assert reason.startswith("latency was not measured")


def test_a_finding_about_something_else_is_no_reason() -> None:
    other = Finding(code="TP1", severity="note", layer=None, text="the head stayed in float")
    receipt = changed(sample_receipt(), "int8", macs=None, findings=(other,))
    (missing,) = [m for m in missing_numbers(receipt) if m.candidate == "int8"]
    assert missing.quantity == "MACs"
    assert missing.reasons == ()


def test_a_finding_about_one_layer_is_no_reason_for_the_whole() -> None:
    layer = Finding(code="TP1", severity="note", layer="head", text="its MACs stayed as they were")
    receipt = changed(sample_receipt(), "int8", macs=None, findings=(layer,))
    (missing,) = [m for m in missing_numbers(receipt) if m.candidate == "int8"]
    assert missing.reasons == ()
