"""A float ONNX file to int8: the same integers as from the network, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinypress.errors import ArtifactError, DataError, InputError, ModelError, ShipError
from tinypress.facts import QuantPlan
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import from_onnx, quantize_onnx, read_exact_on
from tinypress.task import Split

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 2, 3)).astype(np.float32)
NORM = {
    "gamma": np.array([0.5, 2.0, 1.0, 3.0], np.float32),
    "beta": np.array([0.1, 0.0, -0.2, 0.3], np.float32),
    "mean": np.array([0.2, -0.1, 0.0, 0.5], np.float32),
    "var": np.array([1.0, 0.25, 4.0, 0.5], np.float32),
}
HEAD = RNG.normal(size=(4, 3)).astype(np.float32)


def graph(
    *,
    norm: bool = False,
    gemm: dict[str, float] | None = None,
    batch: str | int = "n",
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """x [n, 2, 8] -> Conv (-> BatchNormalization) -> Relu -> GlobalAveragePool -> Flatten -> MatMul or Gemm -> y."""
    tensors = {"kernel": KERNEL, "head": HEAD, **(NORM if norm else {})}
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["c"], kernel_shape=[3])]
    if norm:
        nodes.append(helper.make_node("BatchNormalization", ["c", *NORM], ["b"]))
    nodes += [
        helper.make_node("Relu", ["b" if norm else "c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul" if gemm is None else "Gemm", ["f", "head"], ["y"], **(gemm or {})),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "float.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def samples(count: int = 40) -> Split:
    x = torch.randn(count, 2, 8, generator=torch.Generator().manual_seed(0))
    return Split((x,), torch.zeros(count))


def real_weight(proto: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    scale, q = stored[f"{name}:s"], stored[name].astype(np.float32) - stored[f"{name}:z"].flat[0]
    node = next(node for node in proto.graph.node if node.input[0] == name)
    axis = next(a.i for a in node.attribute if a.name == "axis")
    shape = [1] * q.ndim
    shape[axis] = -1
    return (q * scale.reshape(shape)).astype(np.float32)


@pytest.mark.parametrize("gemm", [None, {"transB": 0}], ids=["matmul", "gemm"])
def test_the_file_computes_in_integers_what_the_float_file_does(
    tmp_path: Path, gemm: dict[str, float] | None
) -> None:
    source, target = saved(tmp_path, graph(gemm=gemm)), tmp_path / "int8.onnx"
    done = quantize_onnx(source, target, samples())
    assert done.path == target
    assert done.notes == ()
    assert set(done.plan.weights) == {"kernel", "head"}
    proto = onnx.load(target)
    head = HEAD if gemm is None else HEAD.T  # a Gemm's weight is stored row by row
    for name, weight, axis in (("kernel", KERNEL, (1, 2)), ("head", head, 0 if gemm is None else 1)):
        step = np.abs(weight).max(axis=axis, keepdims=True) / 127
        assert np.all(np.abs(real_weight(proto, name) - weight) <= step * 0.5001)
    x = samples().inputs[0].numpy()
    was, now = (open_onnx(path).run([x]) for path in (source, target))
    assert np.abs(now - was).max() < 0.05 * np.abs(was).max()
    assert not np.array_equal(now, was)


def test_a_layer_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = from_onnx.with_integers

    def wrong(proto: onnx.ModelProto, plan: QuantPlan, signed: bool) -> onnx.ModelProto:
        made = right(proto, plan, signed)
        for tensor in made.graph.initializer:
            if tensor.name == "head":
                integers = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(~integers, "head"))
        return made

    monkeypatch.setattr(from_onnx, "with_integers", wrong)
    source, target = saved(tmp_path, graph()), tmp_path / "int8.onnx"
    with pytest.raises(ShipError, match="does not compute what the plan says"):
        quantize_onnx(source, target, samples())
    assert not target.exists()
    quantize_onnx(source, target, samples(), check=False)
    assert read_exact_on(target) == ()
    monkeypatch.undo()
    quantize_onnx(source, target, samples())
    assert "avx512_vnni" in read_exact_on(target)


def test_a_batch_norm_is_folded_before_its_weights_are_quantized(tmp_path: Path) -> None:
    source, target = saved(tmp_path, graph(norm=True)), tmp_path / "int8.onnx"
    quantize_onnx(source, target, samples())
    proto = onnx.load(target)
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    factor = NORM["gamma"] / np.sqrt(NORM["var"] + 1e-5)
    kernel = next(node.input[1] for node in proto.graph.node if node.op_type == "Conv").removesuffix(":d")
    folded = KERNEL * factor.reshape(-1, 1, 1)
    step = np.abs(folded).max(axis=(1, 2), keepdims=True) / 127
    assert np.all(np.abs(real_weight(proto, kernel) - folded) <= step * 0.501)
    x = samples().inputs[0].numpy()
    was, now = (open_onnx(path).run([x]) for path in (source, target))
    assert np.abs(now - was).max() < 0.05 * np.abs(was).max()


def test_a_product_that_is_scaled_stays_float_and_is_named(tmp_path: Path) -> None:
    source, target = saved(tmp_path, graph(gemm={"alpha": 2.0})), tmp_path / "int8.onnx"
    done = quantize_onnx(source, target, samples())
    assert set(done.plan.weights) == {"kernel"}
    assert [(note.code, note.layer) for note in done.notes] == [("TP201", "y")]
    x = samples().inputs[0].numpy()
    was, now = (open_onnx(path).run([x]) for path in (source, target))
    assert np.abs(now - was).max() < 0.05 * np.abs(was).max()


def test_equal_calls_write_equal_bytes(tmp_path: Path) -> None:
    source = saved(tmp_path, graph())
    files = [quantize_onnx(source, tmp_path / name, samples()).path.read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


def quantized(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.graph.node[0].op_type = "QLinearConv"
    return proto


def outside(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return proto


def without_products(proto: onnx.ModelProto) -> onnx.ModelProto:
    del proto.graph.node[:]
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
    return proto


def same(proto: onnx.ModelProto) -> onnx.ModelProto:
    return proto


@pytest.mark.parametrize(
    ("settings", "change", "error", "text"),
    [
        ({}, quantized, InputError, "quantized already"),
        ({}, outside, ArtifactError, "another file"),
        ({}, without_products, ModelError, "constant float weight"),
        ({"opset": 12}, same, ArtifactError, "opset 12"),
        ({"batch": 4}, same, ArtifactError, "frozen"),
        ({"kind": TensorProto.DOUBLE}, same, DataError, "takes double"),
    ],
    ids=["quantized", "external", "no products", "old", "frozen", "dtype"],
)
def test_a_file_that_cannot_be_quantized_is_refused(
    tmp_path: Path,
    settings: dict[str, int],
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
    error: type[Exception],
    text: str,
) -> None:
    source = saved(tmp_path, change(graph(**settings)))  # type: ignore[arg-type]
    with pytest.raises(error, match=text):
        quantize_onnx(source, tmp_path / "int8.onnx", samples())
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(
    "data", [b"", b"no onnx", graph().SerializeToString()[:-40]], ids=["empty", "foreign", "cut"]
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "float.onnx").write_bytes(data)
    with pytest.raises(ArtifactError):
        quantize_onnx(tmp_path / "float.onnx", tmp_path / "int8.onnx", samples())


def test_samples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source, x = saved(tmp_path, graph()), samples().inputs[0]
    for inputs, text in (
        ((x, x), "inputs"),
        ((x[:, :1],), "samples are"),
        ((x[:1].repeat(4, 1, 1),), "same 'x'"),
    ):
        with pytest.raises(DataError, match=text):
            quantize_onnx(source, tmp_path / "int8.onnx", Split(inputs, torch.zeros(len(inputs[0]))))
    with pytest.raises(InputError, match="same"):
        quantize_onnx(source, source, samples())
    with pytest.raises(ArtifactError, match="cannot be read"):
        quantize_onnx(tmp_path / "none.onnx", tmp_path / "int8.onnx", samples())
