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
from tinypress.ship.equal import equality_of_file
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


def images(
    nodes: list[onnx.NodeProto], tensors: dict[str, NDArray[np.float32]], *outputs: str
) -> onnx.ModelProto:
    """x [n, 3, 9, 12] -> ``nodes`` -> ``outputs``."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 9, 12])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


PIXELS = Split((torch.randn(16, 3, 9, 12, generator=torch.Generator().manual_seed(0)),), torch.zeros(16))
FIRST = RNG.normal(size=(16, 3, 3, 4)).astype(np.float32)
SECOND = RNG.normal(size=(16, 16, 1, 1)).astype(np.float32)


def near(source: Path, target: Path) -> None:
    was, now = (
        open_onnx(path, outputs=None).session.run(None, {"x": PIXELS.inputs[0].numpy()})
        for path in (source, target)
    )
    for a, b in zip(was, now, strict=True):
        assert a.shape == b.shape
        assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()


@pytest.mark.parametrize("how", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_that_is_left_to_the_runtime(tmp_path: Path, how: str, stride: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], auto_pad=how, strides=[stride, stride]),
        helper.make_node("AveragePool", ["c"], ["a"], kernel_shape=[2, 2], auto_pad=how, strides=[2, 2]),
        helper.make_node("Conv", ["a", "v"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    source = saved(tmp_path, images(nodes, {"w": FIRST, "v": SECOND}, "y"))
    done = quantize_onnx(source, tmp_path / "int8.onnx", PIXELS)
    assert done.notes == ()
    near(source, tmp_path / "int8.onnx")


def test_a_network_may_end_in_a_convolution(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    source, target = saved(tmp_path, images(nodes, {"w": FIRST, "v": SECOND}, "y")), tmp_path / "int8.onnx"
    assert quantize_onnx(source, target, PIXELS).notes == ()
    near(source, target)
    assert equality_of_file(target, (PIXELS.inputs[0].numpy(),), ()) is not None


def test_a_file_of_two_outputs_is_written_and_not_compared(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Conv", ["c", "v"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
        helper.make_node("GlobalAveragePool", ["c"], ["z"]),
    ]
    source, target = (
        saved(tmp_path, images(nodes, {"w": FIRST, "v": SECOND}, "y", "z")),
        tmp_path / "int8.onnx",
    )
    assert [note.code for note in quantize_onnx(source, target, PIXELS).notes] == ["TP207"]
    near(source, target)
    assert equality_of_file(target, (PIXELS.inputs[0].numpy(),), ()) is None


def test_shapes_that_the_source_notes_do_not_contradict_the_file(tmp_path: Path) -> None:
    """Groups of pixels give values other shapes; a strict runtime refuses a file that says the old ones."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"]),
        helper.make_node("Reshape", ["d", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"]),
    ]
    head = RNG.normal(size=(16 * 30, 300)).astype(np.float32)
    proto = images(nodes, {"w": FIRST, "v": SECOND, "head": head}, "y")
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 16 * 30], np.int64), "flat"))
    source = saved(tmp_path, onnx.shape_inference.infer_shapes(proto))
    quantize_onnx(source, tmp_path / "int8.onnx", PIXELS)
    onnx.checker.check_model(onnx.load(tmp_path / "int8.onnx"), full_check=True)
    near(source, tmp_path / "int8.onnx")
