"""The learner's engine beside the toolkit's: equal to the last bit where it is right, and shown where it is not."""

import dataclasses
import re
import time

import pytest

from learning import MODULE
from tinypress import Engine, Recipe, find_task, press, prune_weights_by_magnitude, quantize_layer_weights
from tinypress_course.cells import load_definitions
from tinypress_course.run.beside import GOOD, beside
from tinypress_course.run.both import Both, read_receipt
from tinypress_course.run.compared import compared
from tinypress_course.run.networks import given_by
from tinypress_course.run.page import write_page
from tinypress_course.run.side import press_mine

ENGINE_FUNCTIONS = {
    "prune_weights_by_magnitude",
    "prune_model_by_magnitude",
    "quantize_layer_weights",
    "dequantize_layer_weights",
    "DistillationLoss",
    "prune_layer_neurons",
}


@pytest.fixture(scope="module")
def watch():
    return find_task("watch")


@pytest.fixture(scope="module")
def solution():
    return load_definitions(MODULE / "compression_dev.py")


def _verdicts(functions, watch, missing=()):
    return {each.function: each for each in beside(functions, missing, given_by(watch))}


def test_the_solution_is_the_engine(watch, solution):
    verdicts = _verdicts(solution, watch)
    assert {each.verdict for each in verdicts.values()} <= set(GOOD)
    assert {name for name in ENGINE_FUNCTIONS if verdicts[name].verdict != "same"} == set()


def _largest(layer, sparsity):
    flipped = prune_weights_by_magnitude(layer, 1 - sparsity)
    kept = flipped.model.weight != 0
    flipped.model.weight.data.copy_(layer.weight.data.masked_fill(kept, 0.0))
    return flipped


def _doubled(layer, bits=8, *, scheme="symmetric", per_channel=True):
    right = quantize_layer_weights(layer, bits, scheme=scheme, per_channel=per_channel)
    return dataclasses.replace(right, scale=2 * right.scale)


def _raises(layer, sparsity):
    raise ZeroDivisionError("no weights at all")


def test_a_wrong_formula_is_shown_with_its_place(watch, solution):
    verdicts = _verdicts({**solution, "quantize_layer_weights": _doubled}, watch)
    assert verdicts["quantize_layer_weights"].verdict == "differs"
    assert "conv1 in 8 bits, symmetric: scale" in verdicts["quantize_layer_weights"].where
    verdicts = _verdicts({**solution, "prune_weights_by_magnitude": _largest}, watch)
    assert "conv1 at 80 %" in verdicts["prune_weights_by_magnitude"].where


def test_missing_and_failing_functions_are_told_apart(watch, solution):
    functions = {**solution, "prune_weights_by_magnitude": _raises}
    verdicts = _verdicts(functions, watch, missing=("DistillationLoss",))
    assert verdicts["DistillationLoss"].verdict == "missing"
    assert verdicts["prune_weights_by_magnitude"].verdict == "fails"
    assert "no weights at all" in verdicts["prune_weights_by_magnitude"].where


@pytest.fixture(scope="module")
def recipes():
    pruned, int8 = {"technique": "magnitude", "sparsity": 0.8}, {"technique": "quantize"}
    return [
        Recipe.model_validate({"name": "fp32", "role": "baseline"}),
        Recipe.model_validate({"name": "prune", "steps": [pruned]}),
        Recipe.model_validate({"name": "int8", "steps": [int8]}),
    ]


@pytest.fixture(scope="module")
def reference(watch, recipes, tmp_path_factory):
    return press(watch, recipes, tmp_path_factory.mktemp("reference"))


def _silent(what, done, total):
    pass


def _both(watch, recipes, reference, engine, out):
    left_out = press_mine(watch, recipes, out, engine, _silent, fresh=False)
    return Both(read_receipt(out), reference, left_out)


def test_the_exported_engine_makes_the_same_files(watch, recipes, reference, solution, tmp_path):
    engine = Engine(
        score=solution["prune_weights_by_magnitude"], quantize=solution["quantize_layer_weights"], name="mine"
    )
    done = compared((), _both(watch, recipes, reference, engine, tmp_path), {})
    assert [row.same for row in done.rows] == [True, True, True]
    assert "same files as the toolkit's, to the last bit" in done.headline


def test_one_wrong_formula_is_visible_in_what_was_measured(watch, recipes, reference, solution, tmp_path):
    functions = tuple(beside({**solution, "prune_weights_by_magnitude": _largest}, (), given_by(watch)))
    both = _both(watch, recipes, reference, Engine(score=_largest, name="wrong"), tmp_path)
    done = compared(functions, both, {})
    rows = {row.name: row for row in done.rows}
    assert rows["int8"].same
    assert not rows["prune"].same
    assert rows["prune"].mine.accuracy < rows["prune"].reference.accuracy - 10
    assert "prune_weights_by_magnitude" in done.headline
    write_page(tmp_path / "page.html", done, stale=False)
    page = (tmp_path / "page.html").read_text()
    assert "conv1 at 80 %" in page
    assert re.search(r"-\d+\.\d points of accuracy", page)


def test_a_function_that_raises_leaves_out_its_recipes_alone(watch, recipes, reference, tmp_path):
    both = _both(watch, recipes, reference, Engine(score=_raises, name="raises"), tmp_path)
    assert set(both.left_out) == {"magnitude"}
    done = compared((), both, {})
    rows = {row.name: row for row in done.rows}
    assert rows["prune"].mine is None
    assert "no weights at all" in rows["prune"].says
    assert rows["int8"].same


def test_what_a_learner_wrote_is_escaped_on_the_page(watch, reference, tmp_path):
    def hostile(layer, sparsity):
        raise ValueError("<script>alert(1)</script>")

    functions = tuple(beside({"prune_weights_by_magnitude": hostile}, (), given_by(watch)))
    done = compared(functions, Both(reference, reference, {}), {})
    write_page(tmp_path / "page.html", done, stale=True)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in re.sub(r"http://www\.w3\.org|http://purl|http://creativecommons", "", page)


@pytest.mark.slow
def test_start_test_export_run(tito, solved, capsys):
    """The whole way of the solution; bar: under two minutes on two cores of their own."""
    began = time.perf_counter()
    assert tito("test") == 0
    assert tito("export", "10_compression") == 0
    assert tito("run") == 0
    print(f"\n{time.perf_counter() - began:.0f} s")
    assert "the same files as the toolkit's" in capsys.readouterr().out
    page = (solved / "runs" / "beside" / "page.html").read_text()
    assert page.count("the same file, to the last bit") == 9
    mine, reference = (read_receipt(solved / "runs" / "beside" / name) for name in ("mine", "reference"))
    assert [c.artifact.sha256 for c in mine.candidates] == [c.artifact.sha256 for c in reference.candidates]
