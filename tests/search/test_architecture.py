"""A search meets its budget, says what it tried, gives the same network by seed, and goes on where it was stopped."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from search.small import Net, task
from tinypress.archive import read_archive, write_archive
from tinypress.errors import InputError, ModelError, TaskError
from tinypress.facts import Change, Compressed
from tinypress.graph import trace
from tinypress.measure.compute import count_macs
from tinypress.measure.latency_table import LatencyTable
from tinypress.measure.machine import machine
from tinypress.search import adapt_architecture, search_architecture
from tinypress.search.goal import Goal, timed_layers
from tinypress.search.netadapt import Pace, joined
from tinypress.search.proposals import Choices, proposals
from tinypress.shrink import Budget, prune_structured, remove_layers
from tinypress.tasks.digits import DigitsNet

X = (torch.randn(2, 6, generator=torch.Generator().manual_seed(5)),)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def table(whole: float = 1.0) -> LatencyTable:
    """A machine on which a layer takes 0.001 ms for each product, and a call 0.01 ms."""

    def timing(i, o):
        t = 0.01 + i * o / 1000
        return {"inputs": i, "outputs": o, "median_ms": t, "low_ms": t, "high_ms": t}

    def row(path, i, o):
        return {
            "layers": (path,), "kind": "Linear", "inputs": i, "outputs": o, "values": 1,
            "timings": tuple(timing(a, b) for a in (max(i // 2, 1), i) for b in (max(o // 2, 1), o)),
        }  # fmt: skip

    rows = [
        row(path, layer.in_features, layer.out_features)
        for path, layer in Net().named_modules()
        if isinstance(layer, nn.Linear)
    ]
    sums = sum(row["inputs"] * row["outputs"] for row in rows) / 1000
    return LatencyTable.model_validate(
        {"task": "directions", "batch": 1, "machine": machine(1), "call_ms": 0.01, "whole_ms": (0.01 + sums) * whole,
         "layers": tuple(rows)}
    )  # fmt: skip


@pytest.mark.parametrize("unit", ["parameters", "bytes", "macs"])
def test_a_budget_is_met_and_every_try_is_told(unit):
    given = task()
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    found = search_architecture(given, Budget(**{unit: 0.5}), step=0.2)
    model = found.compressed.model
    assert type(model) is Net
    cost = {
        "parameters": parameters(model),
        "bytes": 4 * parameters(model),
        "macs": count_macs(trace(model, X)),
    }[unit]
    assert found.cost == cost <= found.budget
    assert found.unit == unit
    for number in range(1, max(each.round for each in found.trace) + 1):
        chosen = [each for each in found.trace if each.round == number and each.chosen]
        assert len(chosen) == 1
    assert all(torch.equal(before[name], value) for name, value in given.model.state_dict().items())
    assert all(
        dict(given.model.named_modules()).get(change.layer) is not None for change in found.compressed.changes
    )
    model(X[0]).sum().backward()
    assert parameters(prune_structured(model, X, ratio=0.3).model) < parameters(model)


def test_the_same_seed_gives_the_same_bits_and_the_result_opens_again(tmp_path):
    one, other = (search_architecture(task(), Budget(macs=0.4), step=0.3, seed=3) for _ in range(2))
    assert one.trace == other.trace
    assert one.compressed.changes == other.compressed.changes
    for name, value in one.compressed.model.state_dict().items():
        assert torch.equal(value, other.compressed.model.state_dict()[name])
    write_archive(tmp_path / "found", one.compressed)
    again = read_archive(tmp_path / "found", task().model).model
    assert torch.equal(again(X[0]), one.compressed.model.eval()(X[0]))


def test_layers_leave_where_they_are_worth_least():
    given = task(trains=False)
    with torch.no_grad():
        given.model.blocks[1].down.weight.zero_()
        given.model.blocks[1].down.bias.zero_()
        due = given.model(*given.validation.inputs)
    given = dataclasses.replace(
        given, metric=lambda outputs, targets: -float((outputs - due).square().mean())
    )
    found = search_architecture(given, Budget(macs=0.8), short_epochs=0, step=0.2)
    assert Change("blocks.1", "layers", 1, 0) in found.compressed.changes
    x = torch.randn(5, 6)
    torch.testing.assert_close(found.compressed.model(x), given.model(x))
    kept = search_architecture(given, Budget(macs=0.8), short_epochs=0, step=0.2, depth=False)
    assert len(kept.compressed.model.blocks) == 3


def test_of_all_cuts_of_a_round_the_best_is_kept_as_brute_force_finds():
    """One round; each group's proposal is the least cut, by l2, that comes down to the target."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 3)).eval()
    quality = lambda net: -float((net(X[0]) - model(X[0])).detach().square().sum())  # noqa: E731
    whole = 6 * 8 + 8 * 10 + 10 * 3
    goal = Goal("macs", 0.75 * whole)
    state = adapt_architecture("", model, X, goal, quality, pace=Pace(0.25))
    assert state.rounds == 1
    tried = {each.what: each for each in state.trace}
    first = max(w for w in range(1, 8) if 6 * w + 10 * w + 30 <= goal.most)
    second = max(w for w in range(1, 10) if 48 + 8 * w + 3 * w <= goal.most)
    assert set(tried) == {f"0: 8 to {first}", f"2: 10 to {second}"}
    for path, width in (("0", first), ("2", second)):
        full = model.get_submodule(path).out_features
        other = prune_structured(model, X, ratio=1 - width / full, keep=["2" if path == "0" else "0"]).model
        assert other.get_submodule(path).out_features == width
        assert tried[f"{path}: {full} to {width}"].quality == pytest.approx(quality(other), rel=1e-5)
    best = max(tried.values(), key=lambda each: each.quality)
    assert best.chosen


def test_a_branch_that_the_network_adds_itself_is_proposed_too():
    model = DigitsNet(width=4).eval()
    x = (torch.rand(2, 1, 28, 28),)
    found = {each.what: each for each in proposals(model, x, Goal("macs", 1), 0, Choices())}
    made = found["without conv1"]
    assert made.cost == count_macs(trace(made.model, x))
    assert [change.layer for change in made.changes] == ["conv1", "norm1", "conv2", "norm2"]


def test_what_is_kept_and_its_multiple_are_respected():
    found = search_architecture(
        task(),
        Budget(macs=0.6),
        step=0.3,
        short_epochs=0,
        epochs=0,
        multiple=8,
        depth=False,
        keep=["blocks.0"],
    )
    model = found.compressed.model
    assert model.blocks[0].up.out_features == 24
    assert all(layer.out_features % 8 == 0 for layer in [model.stem, *(block.up for block in model.blocks)])


@pytest.mark.slow
def test_latency_is_predicted_by_the_table_and_measured_beside_the_whole_network():
    times = table()
    found = search_architecture(
        task(trains=False), Budget(latency_ms=0.7), table=times, short_epochs=0, epochs=0, step=0.2
    )
    assert found.measured_ms > 0
    assert found.compressed.notes[0].code in ("TP601", "TP602")
    assert found.cost <= 0.7
    widths = {name: pair for name, (_, pair) in timed_layers(found.compressed.model, times).items()}
    assert found.cost == times.predict_ms(widths)
    own = sum(i * o for i, o in widths.values()) / 1000
    assert found.cost == pytest.approx(0.01 + own, rel=0.05)


def test_layers_keep_their_names_in_the_table_when_a_list_is_shorter():
    model = remove_layers(task().model, X, count=1, keep=["blocks.1", "blocks.2"]).model
    layers = timed_layers(model, table())
    assert layers["blocks.2.up"] == ("blocks.1.up", (16, 24))
    assert "blocks.0.up" not in layers


def test_proposals_come_down_to_the_target_with_as_little_as_does():
    model = Net()
    whole = parameters(model)
    goal = Goal("parameters", 1)
    for each in proposals(model, X, goal, 0.9 * whole, Choices(depth=False)):
        assert each.cost == parameters(each.model) <= 0.9 * whole
    far = list(proposals(model, X, goal, 10, Choices()))
    assert far
    assert [each.cost for each in far] == sorted(each.cost for each in far)


def test_of_a_wide_layer_no_more_units_leave_than_have_to():
    model = nn.Sequential(nn.Linear(6, 203), nn.ReLU(), nn.Linear(203, 3)).eval()
    for target in (1000, 1400, 1801):
        (each,) = proposals(model, X, Goal("macs", 1), target, Choices())
        assert target - 9 < each.cost == 9 * each.model[0].out_features <= target


def test_a_stopped_search_goes_on(tmp_path, monkeypatch):
    settings = {"step": 0.2, "folder": tmp_path, "epochs": 0}
    done = search_architecture(task(), Budget(macs=0.4), **settings)
    (kept,) = tmp_path.iterdir()
    files = sorted(path.name for path in kept.iterdir())
    rounds = max(each.round for each in done.trace)
    assert files == sorted(
        f"round-{n}.{end}" for n in range(1, rounds + 1) for end in ("json", "safetensors")
    )
    assert rounds > 1
    (kept / f"round-{rounds}.json").unlink()

    import tinypress.search.architecture as architecture

    trained = []
    fit = architecture.fit
    monkeypatch.setattr(architecture, "fit", lambda *a, **k: trained.append(1) or fit(*a, **k))
    again = search_architecture(task(), Budget(macs=0.4), **settings)
    assert again.trace == done.trace
    assert again.compressed.changes == done.compressed.changes
    for name, value in done.compressed.model.state_dict().items():
        assert torch.equal(value, again.compressed.model.state_dict()[name])
    assert len(trained) == sum(each.round == rounds for each in done.trace)


@pytest.mark.parametrize("junk", [b'{"format": 1}', b"[" * 10_000])
def test_a_damaged_or_foreign_round_is_done_again(tmp_path, junk):
    settings = {"step": 0.4, "folder": tmp_path, "epochs": 0, "short_epochs": 0}
    done = search_architecture(task(), Budget(macs=0.6), **settings)
    (kept,) = tmp_path.iterdir()
    (kept / "round-1.json").write_bytes(junk)
    assert search_architecture(task(), Budget(macs=0.6), **settings).trace == done.trace
    assert json.loads((kept / "round-1.json").read_bytes())["rounds"] == 1
    (kept / "round-1.safetensors").write_bytes(junk)
    assert search_architecture(task(), Budget(macs=0.6), **settings).trace == done.trace
    whole = (kept / "round-1.safetensors").read_bytes()
    write_archive(kept / "round-1.safetensors", Compressed(task().model))  # opens, and is another network
    assert search_architecture(task(), Budget(macs=0.6), **settings).trace == done.trace
    assert (kept / "round-1.safetensors").read_bytes() == whole


def test_other_data_or_another_seed_is_another_search(tmp_path):
    settings = {"step": 0.5, "folder": tmp_path, "epochs": 0, "short_epochs": 0}
    given = task()
    search_architecture(given, Budget(macs=0.6), **settings)
    search_architecture(given, Budget(macs=0.6), **settings)
    assert len(list(tmp_path.iterdir())) == 1
    search_architecture(given, Budget(macs=0.6), seed=1, **settings)
    other = dataclasses.replace(given, validation=given.test)
    search_architecture(other, Budget(macs=0.6), **settings)
    assert len(list(tmp_path.iterdir())) == 3


def test_changes_of_a_layer_that_left_are_not_told_twice():
    before = (Change("a.up", "out_features", 8, 6), Change("b", "out_features", 4, 3))
    now = (Change("a", "layers", 1, 0), Change("b", "out_features", 3, 2))
    assert set(joined(before, now)) == {Change("a", "layers", 1, 0), Change("b", "out_features", 4, 2)}


@pytest.mark.parametrize(
    ("budget", "settings", "error", "says"),
    [
        (Budget(), {}, InputError, "names 0 costs"),
        (Budget(macs=0.5, bytes=0.5), {}, InputError, "names 2 costs"),
        (Budget(latency_ms=1.0), {}, InputError, "predicted from a table"),
        (Budget(latency_ms=-1.0), {"table": table()}, InputError, "is -1.0"),
        (Budget(latency_ms=1.0, macs=0.5), {"table": table()}, InputError, "several"),
        (Budget(macs=8), {"short_epochs": 0, "step": 0.9}, ModelError, "cannot fall to 8"),
        (Budget(macs=0.5), {"step": 0}, InputError, "step is 0"),
        (Budget(macs=0.5), {"decay": 1.5}, InputError, "decay is 1.5"),
        (Budget(macs=0.5), {"short_epochs": -1}, InputError, "short_epochs is -1"),
        (Budget(macs=0.5), {"multiple": 0}, InputError, "multiple is 0"),
        (Budget(macs=0.5), {"importance": "wanda"}, InputError, "needs data"),
        (Budget(macs=0.5), {"importance": "l9"}, InputError, "l9"),
        (Budget(macs=0.5), {"keep": ["block"]}, InputError, "Did you mean 'blocks'"),
    ],
)
def test_bad_settings_are_refused(budget, settings, error, says):
    with pytest.raises(error) as refused:
        search_architecture(task(), budget, **settings)
    assert says in str(refused.value)


def test_training_without_data_and_a_foreign_table_are_refused():
    with pytest.raises(TaskError, match="no train data"):
        search_architecture(task(trains=False), Budget(macs=0.5))
    row = table().layers[0].model_copy(update={"layers": ("other",)})
    foreign = table().model_copy(update={"layers": (row,)})
    with pytest.raises(InputError, match="'other'"):
        search_architecture(task(), Budget(latency_ms=0.5), table=foreign)


def test_a_budget_that_is_met_already_changes_nothing():
    found = search_architecture(task(), Budget(macs=10**9))
    assert (found.trace, found.compressed.changes) == ((), ())


def test_a_quality_that_is_no_number_is_refused():
    given = dataclasses.replace(task(), metric=lambda outputs, targets: float("nan"))
    with pytest.raises(InputError):
        search_architecture(given, Budget(macs=0.5))
