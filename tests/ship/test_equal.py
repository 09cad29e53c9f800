"""What is simulated is what ships: the integer reference beside ONNX Runtime, on trained networks of five kinds.

Bars: every layer fed the same inputs gives the same integers where it has an integer kernel; end to end every
prediction is equal for the perceptron and the convolutional networks, and for the others 99.5 % are, the rest being
near ties.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from quantized_networks import ROWS, data_of, trained_row

from tinypress.errors import InputError, ModelError, ShipError
from tinypress.facts import Compressed
from tinypress.float_onnx import to_float_onnx
from tinypress.quantize import quantize_model, quantize_weights, run_reference
from tinypress.quantize.reference import evaluate, program_of
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import read_exact_on, to_onnx, write_onnx
from tinypress.ship.equal import EXACT, compare_with_reference, equality_of_file
from tinypress.ship.signs import exact_on

QUICK, THOROUGH = 1, 8
MODULES = ("tinypress.quantize.model", "tinypress.ship.to_onnx", "tinypress.quantize.reference.run")
EXPORTED: dict[int, tuple[torch.nn.Module, onnx.ModelProto]] = {}


@pytest.fixture(autouse=True)
def export_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration, writer and reference export the same network; that takes seconds each time."""

    def exported(
        model: torch.nn.Module, example: tuple[torch.Tensor, ...], **settings: int
    ) -> onnx.ModelProto:
        if id(model) not in EXPORTED or settings:
            EXPORTED[id(model)] = model, to_float_onnx(model, example, **settings)
        copied = onnx.ModelProto()
        copied.CopyFrom(EXPORTED[id(model)][1])
        return copied

    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(name), "to_float_onnx", exported)


PRESSED: dict[tuple[str, int], Compressed] = {}


def pressed(name: str, epochs: int) -> tuple[Compressed, tuple[torch.Tensor, ...]]:
    """The network of a row in integers, and an example of its inputs."""
    train, _, _ = data_of(name)
    example = tuple(column[:2] for column in train.inputs)
    if (name, epochs) not in PRESSED:
        calibration = train.take(slice(0, 256))
        PRESSED[name, epochs] = quantize_model(trained_row(name, epochs), calibration, example)
    return PRESSED[name, epochs], example


def shipped(name: str, epochs: int) -> tuple[onnx.ModelProto, onnx.ModelProto, Compressed]:
    compressed, example = pressed(name, epochs)
    module = importlib.import_module("tinypress.ship.to_onnx")
    return to_onnx(compressed, example), module.to_float_onnx(compressed.model, example), compressed


def samples_of(name: str, count: int) -> tuple[NDArray[np.generic], ...]:
    return tuple(column[:count].numpy() for column in data_of(name)[2].inputs)


EVERY_ROW = [
    *(
        # attention and 1-D convolutions are compared by other fast tests as well: test_to_onnx.py, the pipeline's
        pytest.param(name, QUICK, id=name, marks=pytest.mark.slow if name in ("transformer", "watch") else ())
        for name in ROWS
    ),
    *(pytest.param(name, THOROUGH, id=f"{name}-thorough", marks=pytest.mark.slow) for name in ROWS),
]


@pytest.mark.parametrize(("name", "epochs"), EVERY_ROW)
def test_each_layer_fed_the_same_gives_the_same_integers(name: str, epochs: int) -> None:
    written, proto, compressed = shipped(name, epochs)
    assert compressed.plan is not None
    compared, count = compare_with_reference(name, written, proto, compressed.plan, samples_of(name, 16))
    assert count == 16
    kinds = [layer.kind for layer in compared]
    assert kinds.count("product") == sum(
        step.kind == "product" and step.output in compressed.plan.values
        for step in program_of(proto, compressed.plan).steps
    )
    assert all(layer.differing == 0 for layer in compared if layer.kind in EXACT)
    assert all(layer.most_steps <= 1 for layer in compared)
    floats = {layer.layer.split(" ")[0] for layer in compared if layer.kind == "float"}
    # the exporter writes the mean over a sound's positions with a dimension more, and it stays what it is
    allowed = {"input", "ReduceMean"} if name == "watch" else {"input"}
    assert floats <= allowed or not ROWS[name].integers_throughout
    assert set(compressed.plan.values) >= {layer.value for layer in compared}
    assert not any("val_" in layer.layer for layer in compared)


@pytest.mark.parametrize(("name", "epochs"), EVERY_ROW)
def test_predictions_end_to_end(name: str, epochs: int) -> None:
    written, proto, compressed = shipped(name, epochs)
    assert compressed.plan is not None
    program = program_of(proto, compressed.plan)
    inputs = samples_of(name, 200 if epochs == QUICK else 5000)
    answer = open_onnx(written.SerializeToString()).run(inputs)
    ours = evaluate(program, dict(zip(program.inputs, inputs, strict=True)), "float32")
    same = ours.argmax(1) == answer.argmax(1)
    if ROWS[name].integers_throughout:
        assert same.all()
        # a mean in float or a Sigmoid's table may put a single integer one step off
        assert (ours == answer).mean() > 0.999
        return
    assert same.mean() >= 0.995
    # the step of the head's input, carried through the head
    last = program.steps[-1]
    assert last.fused is not None
    assert last.fused.weight is not None
    weight = dict(compressed.model.named_parameters())[last.fused.weight]
    step = compressed.plan.values[last.fused.inputs[0]].scale * float(weight.detach().abs().max())
    for logits in ours[~same]:
        first, second = np.sort(logits)[::-1][:2]
        assert first - second <= 2 * step


def test_the_other_requantization_rounds_otherwise_and_answers_alike() -> None:
    compressed, example = pressed("cnn", QUICK)
    x = data_of("cnn")[2].inputs[0][:200]
    floats, fixed = (run_reference(compressed, example, (x,), how) for how in ("float32", "fixed"))
    assert not torch.equal(floats, fixed)
    assert (floats.argmax(1) == fixed.argmax(1)).float().mean() > 0.97
    with torch.no_grad():
        exact = compressed.model(x)
    assert (exact - fixed).abs().mean() < 2 * (exact - floats).abs().mean()


def test_what_cannot_be_run_is_said() -> None:
    compressed, example = pressed("mlp", QUICK)
    with pytest.raises(InputError, match="requantization is 'float'"):
        run_reference(compressed, example, example, "float")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 inputs for 1 arguments"):
        run_reference(compressed, example, (*example, *example))
    with pytest.raises(InputError, match="activations are not quantized"):
        run_reference(quantize_weights(trained_row("mlp", QUICK)), example, example)


def with_zero_points_moved(
    proto: onnx.ModelProto, value: str, by: int, kinds: tuple[str, ...]
) -> onnx.ModelProto:
    """``proto`` with another zero point where ``value`` is quantized or dequantized."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in changed.graph.initializer}
    for node in changed.graph.node:
        if node.op_type in kinds and value in (node.input[0], node.input[0].removesuffix(":q")):
            wrong = stored[node.input[2]].astype(np.int64) + by
            same_bytes = wrong.astype(stored[node.input[2]].dtype)
            assert (same_bytes == wrong).all()
            changed.graph.initializer.append(numpy_helper.from_array(same_bytes, "planted"))
            node.input[2] = "planted"
            break
    return changed


QDQ = ("QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize(
    ("value", "kinds", "layer"),
    [
        ("relu", ("QuantizeLinear",), "stem"),
        ("relu", ("DequantizeLinear",), "depthwise"),
        ("pointwise.weight", QDQ, "pointwise"),
        ("grouped.weight", QDQ, "grouped"),
        ("head.weight", QDQ, "head"),
    ],
)
def test_a_planted_zero_point_stops_the_shipment_and_names_the_layer(
    value: str, kinds: tuple[str, ...], layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, example = pressed("cnn", QUICK)
    module = importlib.import_module("tinypress.ship.to_onnx")
    right = module.with_integers
    monkeypatch.setattr(
        module,
        "with_integers",
        lambda *given: with_zero_points_moved(right(*given), value, 1, kinds),
    )
    x = data_of("cnn")[2].inputs[0][:8]
    with pytest.raises(ShipError, match=f"write_onnx.*layer '{layer}' does not compute what the plan says"):
        write_onnx(tmp_path / "a.onnx", compressed, example, check=(x,))
    assert not (tmp_path / "a.onnx").exists()


def test_a_sound_file_is_written_after_the_check(tmp_path: Path) -> None:
    compressed, example = pressed("mlp", QUICK)
    x = data_of("mlp")[2].inputs[0][:8]
    write_onnx(tmp_path / "checked.onnx", compressed, example, check=(x,))
    write_onnx(tmp_path / "plain.onnx", compressed, example)
    checked, plain = ((tmp_path / name).read_bytes() for name in ("checked.onnx", "plain.onnx"))
    assert checked.startswith(plain)  # and one entry that says where it is exact
    assert 0 < len(checked) - len(plain) < 80
    said = read_exact_on(tmp_path / "checked.onnx")
    assert said == exact_on(onnx.load(tmp_path / "checked.onnx"))
    assert read_exact_on(tmp_path / "plain.onnx") == ()
    found = equality_of_file(tmp_path / "checked.onnx", samples_of("mlp", 8), ("avx2",))
    assert found is not None
    assert found.exact_on == said
    changed = onnx.load(tmp_path / "checked.onnx")
    changed.metadata_props[0].value = "avx_vnni my-own " + 1000 * "x"
    onnx.save(changed, tmp_path / "changed.onnx")
    assert read_exact_on(tmp_path / "changed.onnx") == ("avx_vnni",)


def test_an_operator_without_a_reference_is_named() -> None:
    written, proto, compressed = shipped("mlp", QUICK)
    assert compressed.plan is not None
    foreign = onnx.ModelProto()
    foreign.CopyFrom(proto)
    foreign.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ModelError, match=r"run_operator\(Nonsense\)"):
        compare_with_reference("a", written, foreign, compressed.plan, samples_of("mlp", 1))
