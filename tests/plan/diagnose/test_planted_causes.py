"""Three faults planted in a network on real digits: each is mended, and called by its name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plan.diagnose import digits_small as planted
from tinypress.cli.main import app
from tinypress.diagnosis import Diagnosis
from tinypress.errors import ArtifactError, InputError, TaskError
from tinypress.plan.diagnose import diagnose
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe, read_recipes
from tinypress.press.step import Quantize, Step, Structured
from tinypress.receipt import Receipt
from tinypress.report.diagnosis_page import render_diagnosis_page
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Task


def run(task: Task, out: Path, *steps: Step) -> Receipt:
    return press(task, (BASELINE, Recipe(name="pressed", steps=steps)), out)


def right(path: Path, task: Task) -> float:
    """The share of test samples that the file gets right, counted here."""
    answers = open_onnx(path).run([task.test.inputs[0].numpy()])
    return float((answers.argmax(1) == task.test.targets.numpy()).mean())


def mended(task: Task, out: Path) -> Diagnosis:
    """Press to int8, diagnose, and hold what must be so of every mended case."""
    receipt = run(task, out, Quantize())
    before = receipt.candidate("pressed")
    assert before.quality.value < receipt.baseline.quality.value - 0.1
    found = diagnose(out, task, candidate="pressed")
    place = out / "diagnosis" / "pressed"
    assert found.mended
    assert found.after is not None
    assert found.trials[-1].kept
    file = place / found.after.artifact.path
    assert file.stat().st_size == found.after.artifact.bytes
    assert right(file, task) == pytest.approx(found.after.quality.value)
    assert right(file, task) > right(out / before.artifact.path, task) + 0.1
    assert right(file, task) > receipt.baseline.quality.value - 0.03
    again = press(task, (BASELINE, *read_recipes(place / "recipe.json").recipes), out.with_name("again"))
    assert again.candidate("pressed").artifact.sha256 == found.after.artifact.sha256
    return found


@pytest.mark.slow
def test_calibration_on_raw_data_is_found_first(tmp_path: Path) -> None:
    found = mended(planted.with_raw_calibration_data(), tmp_path / "run")
    assert found.cause == "calibration data"
    assert len(found.trials) == 1
    assert min(layer.dead for layer in found.layers if layer.dead is not None) > 0.9
    page = render_diagnosis_page(found)
    assert "The cause: calibration data" in page
    assert "calibrate_on" in page


@pytest.mark.slow
def test_a_layer_that_must_stay_float_is_named(tmp_path: Path) -> None:
    found = mended(planted.with_sensitive_layer(), tmp_path / "run")
    assert found.cause == "sensitive layer"
    assert found.layer_losses[0].layer == "second"
    assert any("'second'" in sentence for sentence in found.story)
    (step,) = found.steps
    assert step["keep"] == ["second"]
    assert (step["equalize"], step["bias_correction"]) == (False, False)  # they helped, and are not needed
    left_out = [trial.remedy for trial in found.trials if trial.left_out]
    assert left_out == ["equalized layers", "corrected biases"]
    assert any(sentence.startswith("Left out again") for sentence in found.story)
    assert "left out again" in render_diagnosis_page(found)


@pytest.mark.slow
def test_an_outlier_channel_is_named(tmp_path: Path) -> None:
    found = mended(planted.with_outlier_channel(), tmp_path / "run")
    assert found.cause == "outlier channel"
    first = next(layer for layer in found.layers if layer.layer == "first")
    assert first.outlier_channel == 5
    assert first.outlier > 100
    assert any("Channel 5 of 'first'" in sentence for sentence in found.story)


def test_a_sound_candidate_has_nothing_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = planted.task()
    run(task, tmp_path, Quantize())
    found = diagnose(tmp_path, task)
    assert (found.mended, found.cause, found.trials, found.after) == (True, None, (), None)
    assert [layer.layer for layer in found.layers] == ["first", "second", "head"]
    assert min(layer.snr_db for layer in found.layers) > 15
    assert "Nothing to mend" in render_diagnosis_page(found)
    text = (tmp_path / "diagnosis" / "pressed" / "diagnosis.json").read_text()
    assert Diagnosis.model_validate_json(text) == found
    assert diagnose(tmp_path, task) == found  # read, not done again

    monkeypatch.setattr("tinypress.cli.diagnose.task_of", lambda *given: task)
    shown = CliRunner().invoke(app, ["diagnose", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "Nothing to mend" in shown.output
    assert "tinypress press small-digits --recipe" in shown.output.replace("\n", " ")
    assert (tmp_path / "diagnosis" / "pressed" / "report.html").read_text() == render_diagnosis_page(found)

    with pytest.raises(InputError, match="no such candidate"):
        diagnose(tmp_path, task, candidate="other")
    with pytest.raises(InputError, match="no such candidate"):
        diagnose(tmp_path, task, candidate=BASELINE.name)
    with pytest.raises(InputError, match="that is no loss"):
        diagnose(tmp_path, task, tolerance=-1.0)
    with pytest.raises(TaskError, match="small-digits"):
        diagnose(tmp_path, dataclasses.replace(task, name="other"))
    (tmp_path / "artifacts" / "pressed.onnx").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="not the file that was measured"):
        diagnose(tmp_path, task)


@pytest.mark.slow
def test_what_pruning_lost_is_won_back(tmp_path: Path) -> None:
    task = planted.task()
    receipt = run(task, tmp_path, Structured(ratio=0.8))
    assert receipt.candidate("pressed").quality.value < 0.8
    found = diagnose(tmp_path, task, tolerance=3.0)
    assert found.step_losses[0].technique == "structured"
    assert found.trials
    assert found.after is not None
    assert found.after.validation > found.before.validation + 0.1
    assert {loss.layer for loss in found.layer_losses} <= {"first", "second"}
    json.loads((tmp_path / "diagnosis" / "pressed" / "recipe.json").read_text())
