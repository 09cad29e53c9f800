"""Units are ranked by importance per millisecond of a table of times."""

import pytest
import torch

from search.small import Net
from tinypress.errors import InputError
from tinypress.measure.latency_table import LatencyTable
from tinypress.measure.machine import machine
from tinypress.shrink import Budget, prune_structured

X = (torch.randn(2, 6, generator=torch.Generator().manual_seed(5)),)


def times(slow: dict[str, float]) -> LatencyTable:
    """A layer takes 0.01 ms at any width, and a millisecond more for all its products where it is ``slow`` by so
    much."""

    def row(path, layer):
        i, o = layer.in_features, layer.out_features

        def timing(a, b):
            t = 0.01 + slow.get(path, 0.0) * (a * b) / (i * o)
            return {"inputs": a, "outputs": b, "median_ms": t, "low_ms": t, "high_ms": t}

        timings = tuple(timing(a, b) for a in (i // 2, i) for b in (max(o // 2, 1), o))
        return {
            "layers": (path,),
            "kind": "Linear",
            "inputs": i,
            "outputs": o,
            "values": 1,
            "timings": timings,
        }

    rows = [row(path, layer) for path, layer in Net().named_modules() if isinstance(layer, torch.nn.Linear)]
    return LatencyTable.model_validate(
        {"task": "directions", "batch": 1, "machine": machine(1), "call_ms": 0.01, "whole_ms": 10.0,
         "layers": tuple(rows)}
    )  # fmt: skip


def pruned(**settings):
    torch.manual_seed(0)
    return prune_structured(Net(), X, scope="global", **settings).model


def inner(model: Net) -> list[int]:
    return [block.up.out_features for block in model.blocks]


def test_units_that_take_long_leave_first_and_units_that_take_no_time_stay():
    slow = times({"blocks.0.up": 2.0, "blocks.0.down": 2.0, "blocks.2.up": 0.5, "blocks.2.down": 0.5})
    by_time = inner(pruned(ratio=0.3, per="latency_ms", table=slow))
    by_size = inner(pruned(ratio=0.3, per="parameters"))
    assert by_time[0] < by_time[2] <= by_time[1] == 24
    assert by_time[0] < by_size[0]
    other = times({"blocks.1.up": 2.0, "blocks.1.down": 2.0})
    assert inner(pruned(ratio=0.2, per="latency_ms", table=other))[0::2] == [24, 24]


def test_a_budget_is_met_by_what_takes_long():
    slow = times({"blocks.2.up": 1.0, "blocks.2.down": 1.0})
    model = pruned(budget=Budget(parameters=0.9), per="latency_ms", table=slow)
    assert inner(model)[:2] == [24, 24]
    assert sum(p.numel() for p in model.parameters()) <= 0.9 * sum(p.numel() for p in Net().parameters())


def test_a_network_that_was_cut_is_known_by_the_same_table():
    by_time = {"per": "latency_ms", "table": times({"blocks.0.up": 2.0, "blocks.0.down": 2.0})}
    torch.manual_seed(0)
    once = prune_structured(Net(), X, scope="global", ratio=0.1, keep=["stem"], **by_time).model
    twice = prune_structured(once, X, scope="global", ratio=0.1, keep=["stem"], **by_time).model
    assert inner(twice)[0] < inner(once)[0] < 24
    assert inner(twice)[1:] == inner(once)[1:] == [24, 24]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"per": "latency_ms"}, "go together"),
        ({"per": "macs", "table": times({})}, "go together"),
        ({"table": times({})}, "go together"),
        ({"per": "latency_ms", "table": {"layers": []}}, "table is a dict"),
        ({"per": "seconds"}, "none of"),
    ],
)
def test_a_table_goes_with_the_ranking_by_time(settings, says):
    with pytest.raises(InputError, match=says):
        pruned(ratio=0.3, **settings)


def test_a_table_of_another_network_is_refused():
    with pytest.raises(InputError, match=r"the table has the layer 'blocks\.0\.down', the network has not"):
        prune_structured(torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 3)), X, ratio=0.3,
                         per="latency_ms", table=times({}))  # fmt: skip
