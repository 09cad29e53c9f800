"""The latency table: liked multiples from latencies that are known, prediction, files of its own and hostile ones."""

import contextlib
import json
import os

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinypress.errors import ArtifactError, InputError, ModelError
from tinypress.measure.latency_table import (
    LatencyTable,
    between,
    preferred_multiple,
    read_latency_table,
    write_latency_table,
)
from tinypress.measure.layer_latency import measure_layers
from tinypress.measure.layer_onnx import layer_onnx, layer_specs
from tinypress.measure.multiples import liked_multiple


def stairs(multiple, top, noise, seed):
    random = np.random.default_rng(seed)
    widths = range(top - 32, top + 1)
    return {w: -(-w // multiple) * multiple * (1 + noise * random.exponential()) for w in widths if w}


def test_what_few_would_feel_is_no_reason_for_a_multiple():
    assert liked_multiple({w: 500.0 + -(-w // 4) * 4 for w in range(32, 65)}) == (1, 0.0)


@pytest.mark.parametrize(("multiple", "top"), [(4, 40), (8, 64), (16, 64)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_of_a_kernel_are_found(multiple, top, seed):
    found, loss = liked_multiple(stairs(multiple, top, 0.02, seed))
    assert found == multiple
    due = np.mean([(-(-w // multiple) * multiple) / w - 1 for w in range(top - 32, top + 1) if w % multiple])
    assert loss == pytest.approx(due, rel=0.5)


@pytest.mark.parametrize("multiple", [2, 8, 16])
def test_a_slower_kernel_for_other_widths_is_found(multiple):
    times = {w: 10.0 + w + (15.0 if w % multiple else 0.0) for w in range(32, 65)}
    found, loss = liked_multiple(times)
    assert found == multiple
    assert 0.1 < loss < 0.4


@pytest.mark.parametrize("seed", range(8))
def test_a_line_with_noise_likes_all_widths(seed):
    random = np.random.default_rng(seed)
    assert liked_multiple({w: 5.0 + w * (1 + 0.05 * random.exponential()) for w in range(32, 65)}) == (1, 0.0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=33, max_size=33))
def test_any_latencies_give_a_loss_that_a_table_can_hold(values):
    multiple, loss = liked_multiple(dict(enumerate(values, start=32)))
    assert multiple in (1, 2, 4, 8, 16, 32)
    assert 0 <= loss < 100


def test_where_odd_widths_are_faster_no_multiple_is_liked():
    assert liked_multiple({w: 10.0 + w - (15.0 if w % 8 else 0.0) for w in range(32, 65)})[0] == 1


@pytest.mark.parametrize(
    "times", [{}, {1: 1.0}, dict.fromkeys(range(1, 20), 0.0), {w: float("nan") for w in range(1, 20)}]
)
def test_too_little_is_refused(times):
    with pytest.raises(InputError):
        liked_multiple(times)


class Small(nn.Module):
    """[B, 3, 12] -> [B, 4] by an ordinary, a strided and a depthwise convolution and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(3, 8, 3, padding="same", dilation=2)
        self.b = nn.Conv1d(8, 12, 3, stride=2, padding=1, bias=False)
        self.deep = nn.Conv1d(12, 24, 3, groups=12)
        self.tokens, self.head = nn.Linear(4, 6), nn.Linear(24 * 6, 4)

    def forward(self, x):
        x = torch.relu(self.deep(torch.relu(self.b(torch.relu(self.a(x))))))
        return self.head(torch.relu(self.tokens(x)).flatten(1))


EXAMPLE = (torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def table():
    return measure_layers("small", Small().eval(), EXAMPLE, seconds=0.01, rounds=6, shares=(0.5, 1.0))


def test_each_layer_alone_has_the_shapes_that_it_has_in_the_network():
    model = Small().eval()
    outputs = {}
    for path, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, y, path=path: outputs.update({path: tuple(y.shape[1:])}))
    specs = layer_specs("", model, EXAMPLE)
    model(*EXAMPLE)
    assert list(specs) == list(outputs)
    for path, spec in specs.items():
        data, shape = layer_onnx(spec, spec.inputs, spec.outputs)
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (made,) = session.run(None, {"x": np.zeros(shape, np.float32)})
        assert made.shape == (1, *outputs[path])
        assert spec.values * spec.outputs == made.size


def test_it_names_the_machine_and_times_every_pair_of_widths(table):
    assert table.machine.threads == 1
    assert "onnxruntime" in table.machine.runtimes
    rows = {row.layers[0]: row for row in table.layers}
    assert [(x.inputs, x.outputs) for x in rows["b"].timings] == [(4, 6), (4, 12), (8, 6), (8, 12)]
    assert [(x.inputs, x.outputs) for x in rows["deep"].timings] == [(6, 12), (12, 24)]
    assert {(each.kind, each.side) for each in table.multiples} == {
        (kind, side) for kind in ("Conv1d", "Linear") for side in ("inputs", "outputs")
    }
    assert all(len(each.timings) == 33 for each in table.multiples)


def test_progress_comes_to_its_end():
    seen = []
    measure_layers(
        "small",
        nn.Sequential(nn.Linear(4, 3)),
        (torch.randn(2, 4),),
        seconds=0.01,
        rounds=6,
        shares=(1.0,),
        watch=lambda *step: seen.append(step),
    )
    done = [step[1] for step in seen]
    assert done == sorted(done)
    assert {step[2] for step in seen} == {done[-1]}


def plain(**changes):
    """A table with times that are known: t = 1 + inputs * outputs / 100, the call 1, 0.5 beside the layers."""

    def timing(i, o):
        t = 1 + i * o / 100
        return {"inputs": i, "outputs": o, "median_ms": t, "low_ms": t, "high_ms": t}

    def row(name, i, o):
        return {
            "layers": [name], "kind": "Linear", "inputs": i, "outputs": o, "values": 1, "calls": 1,
            "timings": [timing(a, b) for a in (i // 2, i) for b in (o // 2, o)],
        }  # fmt: skip

    return {
        "format": 1, "task": "plain", "batch": 1, "call_ms": 1.0, "whole_ms": 1 + 2 + 0.5,
        "machine": {"cpu": "one", "isa": ["avx2"], "threads": 1, "runtimes": {"onnxruntime": "1"}},
        "layers": [row("a", 10, 10), row("b", 10, 10)],
        "multiples": [
            {"layer": "a", "kind": "Linear", "side": side, "multiple": m, "loss": 0.2}
            for side, m in (("inputs", 4), ("outputs", 8))
        ],
        **changes,
    }  # fmt: skip


def test_prediction_interpolates_and_adds_up():
    table = LatencyTable.model_validate_json(json.dumps(plain()))
    assert table.predict_ms({"a": (10, 10), "b": (10, 10)}) == pytest.approx(table.whole_ms)
    assert table.predict_ms({"a": (10, 5), "b": (5, 10)}) == pytest.approx(1 + 1 + 0.5 * 15 / 20)
    assert table.predict_ms({"a": (7, 8), "b": (8, 10)}) == pytest.approx(1 + 0.56 + 0.8 + 0.5 * 18 / 20)
    assert table.predict_ms({"a": (10, 10)}) == pytest.approx(1 + 1 + 0.25)
    assert between(table.layers[0], 2, 2) < between(table.layers[0], 5, 5)
    assert preferred_multiple(table) == 8
    with pytest.raises(InputError, match="no layer 'c'"):
        table.predict_ms({"c": (1, 1)})


def test_layers_that_are_faster_together_still_add_up_to_the_whole():
    table = LatencyTable.model_validate_json(json.dumps(plain(whole_ms=2.0)))
    assert table.predict_ms({"a": (10, 10), "b": (10, 10)}) == pytest.approx(2.0)
    assert table.predict_ms({"a": (10, 5), "b": (5, 10)}) == pytest.approx(1.5)


def test_the_file_holds_what_was_measured(table, tmp_path):
    path = tmp_path / "folder" / "table.json"
    write_latency_table(path, table)
    assert read_latency_table(path) == table
    assert [each.name for each in path.parent.iterdir()] == ["table.json"]


def edit(value, path, new):
    for part in path[:-1]:
        value = value[part]
    value[path[-1]] = new


HOSTILE = [
    (("format",), 2, "format"),
    (("exec",), "rm", "exec"),
    (("batch",), True, "batch"),
    (("call_ms",), -1.0, "call_ms"),
    (("whole_ms",), 1e300, "whole_ms"),
    (("layers",), [], "layers"),
    (("layers", 0, "layers"), ["x" * 2000], "layers.0.layers.0"),
    (("layers", 1, "layers"), ["a"], "a layer comes twice"),
    (("layers", 0, "inputs"), 2**40, "layers.0.inputs"),
    (("layers", 0, "inputs"), 9, "not among the timings"),
    (("layers", 0, "timings", 0, "inputs"), 10, "one for each pair"),
    (("layers", 0, "timings", 0, "inputs"), 3, "one for each pair"),
    (("layers", 0, "timings", 0, "low_ms"), 99.0, "outside its interval"),
    (("layers", 0, "timings", 0, "median_ms"), "1", "median_ms"),
    (("multiples", 0, "multiple"), 0, "multiples.0.multiple"),
    (("multiples", 0, "multiple"), 2**20, "multiples.0.multiple"),
    (("multiples", 0, "side"), "both", "multiples.0.side"),
    (("machine",), [], "machine"),
    (("machine", "threads"), "many", "machine.threads"),
]


@pytest.mark.parametrize(("place", "new", "says"), HOSTILE)
def test_hostile_tables_are_refused_with_the_field(place, new, says, tmp_path):
    value = plain()
    edit(value, place, new)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ArtifactError) as refused:
        read_latency_table(path)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"null", b"[" * 100_000, b'{"format": 1', b'{"call_ms": NaN}', b" " * (16 * 2**20 + 1), b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_table_is_refused(data, tmp_path):
    path = tmp_path / "table.json"
    path.write_bytes(data)
    with pytest.raises(ArtifactError):
        read_latency_table(path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "none", "."):
        with pytest.raises(ArtifactError, match="no such file"):
            read_latency_table(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x, max_size=3)
    )
)
def test_any_value_in_any_field_is_a_table_or_refused(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "table.json"
    for field in plain():
        path.write_text(json.dumps(plain(**{field: junk})))
        with contextlib.suppress(ArtifactError):
            read_latency_table(path)


@pytest.mark.parametrize("shares", [(0.5,), (0.0, 1.0), (2.0, 1.0)])
def test_bad_shares_are_refused(shares):
    with pytest.raises(InputError, match="shares"):
        measure_layers("small", Small(), EXAMPLE, shares=shares)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ModelError, match="no linear layer"):
        measure_layers("none", nn.Sequential(nn.ReLU()), EXAMPLE)
