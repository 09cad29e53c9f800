"""The menu of remedies for weights of few bits: in the order of their price, and each a valid step."""

from __future__ import annotations

from pathlib import Path

import pytest

from plan.diagnose import digits_small as planted
from tinypress.plan.diagnose import diagnose, remedies
from tinypress.plan.diagnose.evidence import Evidence
from tinypress.plan.diagnose.remedies import WEIGHTS, menu
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.step import Qat, Quantize

SEEN = Evidence(0, (), (), ())


def test_learned_rounding_costs_more_than_bits_and_less_than_a_training() -> None:
    names = [remedy.name for remedy in WEIGHTS]
    order = ["corrected biases", "one bit more", "learned rounding", "short training"]
    assert [name for name in names if name in order] == order
    assert names[-1] == "short training"


@pytest.mark.parametrize(
    "step",
    [
        Quantize(bits=3),
        Quantize(bits=3, per_channel=False),
        Quantize(bits=4, weights_only=True, group_size=16),
    ],
    ids=["few bits", "one scale", "weights alone"],
)
def test_each_remedy_makes_a_step_that_is_valid(step: Quantize) -> None:
    assert menu((step,), 0) is WEIGHTS
    for remedy in WEIGHTS:
        made = remedy.edit((step,), SEEN)
        if remedy.name in ("one layer in float",):
            assert made is None  # nothing is known of the layers here
            continue
        assert made is not None
        (changed,) = made
        assert isinstance(changed, Quantize | Qat)
        if remedy.name == "learned rounding":
            assert isinstance(changed, Quantize)
            assert changed.weights_only
            assert changed.method == "adaround"
            assert changed.bits == step.bits


@pytest.mark.slow
def test_learned_rounding_mends_what_rounding_to_nearest_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = planted.task()
    learned = tuple(remedy for remedy in WEIGHTS if remedy.name == "learned rounding")
    monkeypatch.setattr(remedies, "WEIGHTS", learned)
    recipe = Recipe(name="pressed", steps=(Quantize(bits=2, weights_only=True),))
    receipt = press(task, (BASELINE, recipe), tmp_path / "run")
    before = receipt.candidate("pressed")
    found = diagnose(tmp_path / "run", task, candidate="pressed", tolerance=0.0)
    (trial,) = found.trials
    assert trial.remedy == "learned rounding"
    assert trial.kept
    assert trial.validation is not None
    assert trial.validation > before.validation.value
    assert found.after is not None
    assert found.after.quality.value > before.quality.value
    assert found.after.artifact.bytes == before.artifact.bytes  # which way weights are rounded costs none
