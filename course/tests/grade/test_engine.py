"""A learner's techniques behind a pipe: the same results as in this process, and nothing that does not fit gets in."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from tinypress import DistillationLoss, Engine, Recipe, find_task, prune_layer_neurons, quantize_layer_weights
from tinypress_course.cells import load_definitions
from tinypress_course.grade.application import Budget, Refused, designed, kept_share
from tinypress_course.grade.engine import PARTS, chain_of, engine_of, onto
from tinypress_course.models import network_data
from tinypress_course.module import SOURCE
from tinypress_course.probes import call
from tinypress_course.wire import as_plain

ALL = frozenset(PARTS.values())


@pytest.fixture(scope="module")
def task():
    return find_task("watch")


@pytest.fixture(scope="module")
def engine(module):
    """The solution's functions, asked for in plain data as they would be in a sandbox."""
    functions = load_definitions(module / SOURCE)
    return engine_of(
        lambda name, inputs: as_plain(call(functions, name, as_plain(dict(inputs)))), ALL, "mine"
    )


def test_the_chain_computes_what_the_network_computes(task):
    for training in (False, True):
        model = copy.deepcopy(task.model).train(training)
        outputs = []
        for network in (model, chain_of(model)):
            torch.manual_seed(3)  # of the dropout
            outputs.append(network(task.train.inputs[0][:8]))
        assert torch.equal(*outputs)


def test_a_layer_shrinks_as_it_does_here(task, engine):
    model = task.model
    for layer in ("conv1", "conv2", "conv3"):
        mine = engine.shrink(model, layer, 0.3, task.example_inputs, importance="l2", seed=1)
        ours = prune_layer_neurons(model, layer, 0.3, task.example_inputs)
        assert type(mine.model) is type(model)
        for name, value in ours.model.state_dict().items():
            assert torch.equal(mine.model.state_dict()[name], value), name
        (change,), due = mine.changes, ours.changes[0]
        assert (change.layer, change.was, change.now) == (due.layer, due.was, due.now)
        model = mine.model
    assert model.conv3.in_channels == model.conv2.out_channels < task.model.conv2.out_channels


def test_importance_by_activation_gets_its_samples(task, engine):
    samples = (task.train.inputs[0][:64],)
    mine = engine.shrink(
        task.model, "conv1", 0.5, task.example_inputs, importance="activation", calibration=samples
    )
    assert mine.model.conv1.out_channels == task.model.conv1.out_channels // 2


def test_weights_are_pruned_and_quantized_as_they_are_here(task, engine):
    layer = task.model.conv2
    pruned = engine.score(layer, 0.8).model
    assert (pruned.weight == 0).double().mean().item() == pytest.approx(0.8, abs=1e-4)
    assert torch.equal(pruned.weight[pruned.weight != 0], layer.weight[pruned.weight != 0])
    for scheme, per_channel in (("symmetric", True), ("affine", False)):
        mine = engine.quantize(layer, 4, scheme=scheme, per_channel=per_channel)
        ours = quantize_layer_weights(layer, 4, scheme=scheme, per_channel=per_channel)
        for name in ("packed", "scale", "zero_point"):
            assert torch.equal(getattr(mine, name), getattr(ours, name)), name


def test_the_loss_has_its_value_and_its_gradient(engine):
    torch.manual_seed(0)
    start, teacher, labels = torch.randn(6, 7), torch.randn(6, 7), torch.arange(6)
    got = []
    for make in (engine.loss, DistillationLoss):
        student = start.clone().requires_grad_()
        loss = make(temperature=4.0, alpha=0.7)(student, teacher, labels)
        (3 * loss).backward()
        got.append((loss.detach(), student.grad))
    assert torch.allclose(got[0][0], got[1][0])
    assert torch.allclose(got[0][1], got[1][1])


def test_what_is_not_passed_is_the_toolkits(engine):
    toolkit = Engine()
    mixed = engine_of(lambda name, inputs: {}, frozenset({"DistillationLoss"}), "mixed")
    assert (mixed.score, mixed.quantize, mixed.shrink) == (toolkit.score, toolkit.quantize, toolkit.shrink)
    assert mixed.loss is not toolkit.loss


def saying(answer, part):
    return getattr(engine_of(lambda name, inputs: answer, ALL, "hostile"), part)


LINEAR = nn.Linear(4, 2)
GOOD = {
    "packed": torch.zeros(8, dtype=torch.uint8), "shape": [2, 4], "bits": 8, "scheme": "symmetric", "axis": None,
    "scale": torch.ones(1), "zero_point": torch.zeros(1, dtype=torch.int32),
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [10**6, 10**6]},
        {"packed": torch.zeros(10**6, dtype=torch.uint8)},
        {"scale": torch.tensor([float("nan")])},
        {"scale": torch.ones(2)},
        {"axis": 7},
        {"axis": True},
        {"bits": 2},
        {"zero_point": "0"},
    ],
)
def test_packed_weights_that_do_not_fit_are_refused(wrong):
    assert saying(GOOD, "quantize")(LINEAR, 8).bits == 8
    with pytest.raises(Refused):
        saying({**GOOD, **wrong}, "quantize")(LINEAR, 8)


@pytest.mark.parametrize(
    "weight", [torch.zeros(2, 5), torch.full((2, 4), float("inf")), torch.zeros(2, 4).double(), "w", None]
)
def test_pruned_weights_that_do_not_fit_are_refused(weight):
    with pytest.raises(Refused):
        saying({"layer": {"state": {"weight": weight}}}, "score")(LINEAR, 0.5)
    with pytest.raises(Refused):
        saying({"layer": weight}, "score")(LINEAR, 0.5)


def test_an_error_and_a_loss_without_a_gradient_are_refused():
    error = {"error": "ValueError", "kinds": ["ValueError"], "message": "no"}
    with pytest.raises(Refused, match="ValueError: no"):
        saying(error, "score")(LINEAR, 0.5)
    loss = saying({"loss": torch.tensor(1.0), "gradient": None}, "loss")(temperature=1.0, alpha=0.5)
    with pytest.raises(Refused, match="gradient"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


def test_a_network_that_does_not_fit_is_refused(task):
    good = network_data(chain_of(task.model))
    onto(task.model, good)

    def changed(at, **layer):
        layers = [dict(each) for each in good["layers"]]
        layers[at] |= layer
        return {"layers": layers, "training": False}

    state = good["layers"][0]["state"]
    huge = {**state, "weight": torch.zeros(4096, 6, 5)}
    for wrong in (
        None,
        {"layers": good["layers"][:-1]},
        changed(0, kind="Linear"),
        changed(0, name="conv9"),
        changed(0, state={**state, "extra": torch.zeros(1)}),
        changed(0, state={"weight": state["weight"]}),
        changed(0, state=huge),
        changed(0, state={**state, "weight": state["weight"][:0]}),
        changed(0, state={**state, "weight": state["weight"].double()}),
        changed(0, state={**state, "weight": state["weight"].flatten()}),
        changed(0, state="none"),
    ):
        with pytest.raises(Refused):
            onto(task.model, wrong)


def test_a_quality_within_the_tolerance_is_whole_and_falls_evenly():
    assert [kept_share(lost, 3, 15) for lost in (-5, 0, 3, 9, 15, 80)] == [1, 1, 1, 0.5, 0, 0]


def test_a_recipe_is_taken_only_as_far_as_the_rubric_allows(rubric):
    ask = partial(designed, budget=Budget(1, 2), rubric=rubric.application)
    quantize = {"technique": "quantize", "bits": 8}
    recipe = ask(lambda name, inputs: {"recipe": {"steps": [quantize], "ship": ["archive"], "name": "../x"}})
    assert recipe == Recipe(name="pipeline", steps=(quantize,), ship=("archive",))
    for steps, said in (
        ([{"technique": "recover", "epochs": 10**9}], "epochs"),
        ([{"technique": "recover"}] * 9, "steps"),
        ([{**quantize, "calibration_samples": 10**9}], "samples"),
        ([{"technique": "magic"}], "magic"),
        ([7], "carried out"),
        ("quantize", "no recipe"),
    ):
        with pytest.raises(Refused, match=said):
            ask(lambda name, inputs, steps=steps: {"recipe": {"steps": steps}})
    with pytest.raises(Refused, match="carried out"):
        ask(lambda name, inputs: {"recipe": {"steps": [], "ship": 7}})
    with pytest.raises(Refused, match="no recipe"):
        ask(lambda name, inputs: {"recipe": None})
