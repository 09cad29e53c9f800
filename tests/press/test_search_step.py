"""A recipe lets a search choose the widths: the budget holds, zeros stay, and a run that was stopped goes on."""

from __future__ import annotations

import pytest
import torch

from search.small import Net, task
from tinypress.errors import ModelError, RecipeError
from tinypress.facts import Compressed
from tinypress.graph import trace
from tinypress.measure.compute import count_macs
from tinypress.press import steps as press_steps
from tinypress.press.bench import Bench
from tinypress.press.carry_out import carry_out
from tinypress.press.engine import Engine
from tinypress.press.recipe import Recipe
from tinypress.press.rehearse import rehearse
from tinypress.press.run_folder import RunFolder
from tinypress.press.step import Magnitude, Quantize, Structured
from tinypress.press.steps import apply_step
from tinypress.search import netadapt

SEARCH = Structured(macs=0.5, search=True)


def bench() -> Bench:
    return Bench(task(), Engine(), 0)


def macs(model: torch.nn.Module) -> int:
    return count_macs(trace(model, task().example_inputs))


def test_the_budget_holds_and_the_note_says_how_many_were_tried():
    after = apply_step(SEARCH, Compressed(task().model), bench(), from_scratch=False)
    assert type(after.model) is Net
    assert macs(after.model) <= 0.5 * macs(task().model)
    (note,) = [each for each in after.notes if each.code == "TP603"]
    assert "networks were trained for 1 epoch(s)" in note.text
    # one cut chooses the same share of every group; a search does not
    left = [block.up.out_features / 24 for block in after.model.blocks] + [after.model.stem.out_features / 16]
    assert len(set(left)) > 1 or len(left) < 4


def test_pruned_zeros_stay_zero_through_all_trainings_of_a_search():
    pruned = apply_step(Magnitude(sparsity=0.5), Compressed(task().model), bench(), from_scratch=False)
    after = apply_step(SEARCH, pruned, bench(), from_scratch=False)
    tensors = dict(after.model.named_parameters())
    assert after.pruned
    assert after.pruned <= tensors.keys()
    zeros = sum(int((tensors[name] == 0).sum()) for name in after.pruned)
    # a single optimizer step would leave hardly any
    assert zeros / sum(tensors[name].numel() for name in after.pruned) > 0.3


def test_a_stopped_search_of_a_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    recipe = Recipe(name="searched", steps=(SEARCH, Quantize()))
    due, _ = carry_out(RunFolder(tmp_path / "whole"), recipe, bench())
    folder = RunFolder(tmp_path / "stopped")
    real, rounds = netadapt._round, []

    def stopped(*args, **kwargs):
        if len(rounds) == 2:
            raise KeyboardInterrupt
        rounds.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(netadapt, "_round", stopped)
    with pytest.raises(KeyboardInterrupt):
        carry_out(folder, recipe, bench())
    rounds.clear()

    def counted(*args, **kwargs):
        rounds.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(netadapt, "_round", counted)
    now, _ = carry_out(folder, recipe, bench())
    assert all(
        torch.equal(x, y)
        for x, y in zip(due.model.state_dict().values(), now.model.state_dict().values(), strict=True)
    )
    (note,) = [each for each in now.notes if each.code == "TP603"]
    assert f"in {len(rounds) + 2} rounds" in note.text
    assert not list((folder.state / "training").iterdir())  # nothing is left behind


@pytest.fixture
def calls(monkeypatch):
    """One entry for each time that layers are measured, which is done quickly."""
    calls = []
    names = press_steps.searched.__globals__
    real = names["measure_layers"]

    def quickly(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs, seconds=0.01, rounds=6)

    monkeypatch.setitem(names, "measure_layers", quickly)
    return calls


@pytest.mark.slow
def test_milliseconds_are_predicted_from_layers_that_are_timed_once(tmp_path, calls):
    step = Structured(latency_ms=1e-6, search=True)
    for _ in range(2):
        with pytest.raises(ModelError, match="latency_ms cannot fall to 1e-06"):
            carry_out(RunFolder(tmp_path), Recipe(name="fast", steps=(step,)), bench())
    assert len(calls) == 1
    (kept,) = tmp_path.rglob("latency.json")
    kept.write_text("{}")  # damaged: measured again
    with pytest.raises(ModelError, match="latency_ms cannot fall to 1e-06"):
        carry_out(RunFolder(tmp_path), Recipe(name="fast", steps=(step,)), bench())
    assert len(calls) == 2


def test_ranking_by_time_measures_the_layers_once_for_a_run(tmp_path, calls):
    step = Structured(macs=0.5, per="latency_ms")
    rehearse(bench(), [Recipe(name="by-time", steps=(SEARCH, step))])
    assert not calls
    for _ in range(2):
        done, *_ = carry_out(RunFolder(tmp_path), Recipe(name="by-time", steps=(step,)), bench())
        assert macs(done.model) <= 0.5 * macs(Net())
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ratio": 0.5}, "search needs a budget"),
        ({"macs": 0.5, "rounds": 2}, "search has no rounds"),
        ({"macs": 0.5, "scope": "global"}, "search has no scope"),
        ({"macs": 0.5, "importance": "taylor"}, "needs data for every proposal"),
        ({"macs": 1.0}, "macs is 1: give a whole number above 1, or a fraction below 1"),
        ({"parameters": 20.5}, "parameters is 20.5"),
        ({"parameters": 1e308}, "parameters is 1e\\+308"),
    ],
)
def test_settings_that_a_search_has_not_are_refused(settings, says):
    with pytest.raises(RecipeError, match=says):
        Structured(search=True, **settings)


def test_what_a_search_cannot_cut_is_known_before_any_training(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a rehearsal searches nothing")

    monkeypatch.setattr(press_steps, "searched", never)
    rehearse(bench(), [Recipe(name="twice", steps=(SEARCH, SEARCH.model_copy(update={"macs": 0.3})))])
