"""Layers in the shapes that a processor's kernels like: the same integers, to the bit, wherever they lie."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tinypress.facts import Compressed, QuantizedValue, QuantPlan
from tinypress.onnx_shapes import shapes_of
from tinypress.quantize import quantize_layer_weights, quantize_model
from tinypress.quantize.reference import Step, evaluate, program_of
from tinypress.quantize.reference.program import Array
from tinypress.runtimes.fused import INTEGER_KERNELS
from tinypress.runtimes.onnx import open_onnx, optimized_graph
from tinypress.ship import to_onnx
from tinypress.ship.deep_products import LEAST_CHANNELS, multiply_deep
from tinypress.ship.equal import compare_with_reference
from tinypress.ship.layout import laid_out
from tinypress.ship.pixel_groups import group_pixels
from tinypress.ship.read_plan import plan_of_file
from tinypress.task import Split

VNNI, AMX = ("avx2", "avx512f", "avx512_vnni"), ("avx2", "avx512f", "avx512_vnni", "amx_int8")
Rewrite = Callable[[onnx.ModelProto, QuantPlan], tuple[onnx.ModelProto, QuantPlan]]


def grouped(
    proto: onnx.ModelProto, plan: QuantPlan, growth: float = math.inf
) -> tuple[onnx.ModelProto, QuantPlan]:
    changed = onnx.ModelProto.FromString(proto.SerializeToString())
    return changed, group_pixels(changed.graph, plan, growth)


def deep(proto: onnx.ModelProto, plan: QuantPlan) -> tuple[onnx.ModelProto, QuantPlan]:
    changed = onnx.ModelProto.FromString(proto.SerializeToString())
    return changed, multiply_deep(changed.graph, plan, shapes_of(changed))


def one_layer(
    layer: nn.Conv2d, size: tuple[int, int], clamp: str, per_channel: bool, seed: int
) -> tuple[onnx.ModelProto, QuantPlan]:
    """x -> ``layer`` -> v -> y, with ranges that the sums fill."""
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "w"] + ["b"] * (layer.bias is not None),
            ["c" if clamp else "v"],
            group=layer.groups,
            strides=layer.stride,
            dilations=layer.dilation,
            kernel_shape=layer.kernel_size,
            pads=[int(pad) for pad in layer.padding] * 2,
        )
    ]
    if clamp:
        ends = ["low", "high"] if clamp == "Clip" else []
        nodes.append(helper.make_node(clamp, ["c", *ends], ["v"]))
    nodes.append(helper.make_node("Identity", ["v"], ["y"]))
    rng = np.random.default_rng(seed)
    x = QuantizedValue(float(np.float32(rng.uniform(0.001, 0.2))), int(rng.integers(0, 256)))
    spread = (
        x.scale * 74 * float(layer.weight.detach().square().mean().sqrt()) * layer.weight[0].numel() ** 0.5
    )
    v = QuantizedValue(float(np.float32(spread / 40)), 0 if clamp else int(rng.integers(0, 256)))
    tensors = {
        "w": layer.weight.detach().numpy(),
        "low": np.array(0, np.float32),
        "high": np.array(v.scale * 256, np.float32),
    }
    tensors |= {} if layer.bias is None else {"b": layer.bias.detach().numpy()}
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", layer.in_channels, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items() if name in read],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    weight = quantize_layer_weights(layer, per_channel=per_channel)
    return proto, QuantPlan({"w": weight}, {"x": x, "v": v})


def integers(proto: onnx.ModelProto, plan: QuantPlan, fed: Array) -> Array:
    """Those of v by the reference."""
    seen: dict[str, Array] = {}

    def keep(step: Step, found: Array) -> Array:
        seen[step.output] = found
        return found

    evaluate(program_of(proto, plan), {"x": fed}, "float32", keep)
    return seen["v"]


def in_the_runtime(proto: onnx.ModelProto, plan: QuantPlan, fed: Array, *, signed: bool) -> Array:
    """Those of v by kernels that may not saturate."""
    copied = onnx.ModelProto.FromString(proto.SerializeToString())
    written = importlib.import_module("tinypress.ship.to_onnx").with_integers(copied, plan, signed)
    written.graph.output.append(helper.make_tensor_value_info("v:q", TensorProto.UINT8, None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    found: Array = onnxruntime.InferenceSession(written.SerializeToString(), options).run(
        ["v:q"], {"x": fed}
    )[0]
    return found


def samples(plan: QuantPlan, shape: tuple[int, ...], seed: int) -> Array:
    x = plan.values["x"]
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, shape) - x.zero_point).astype(np.float32) * np.float32(x.scale)


def same_everywhere(
    rewrite: Rewrite, proto: onnx.ModelProto, plan: QuantPlan, shape: tuple[int, ...], seed: int
) -> tuple[onnx.ModelProto, QuantPlan]:
    """The rewritten layer, which has given the same integers in the reference and in the runtime."""
    before = proto.SerializeToString()
    changed, new_plan = rewrite(proto, plan)
    assert proto.SerializeToString() == before
    fed = samples(plan, shape, seed)
    expected = integers(proto, plan, fed)
    assert len(np.unique(expected)) > 1 or expected.size < 100
    np.testing.assert_array_equal(integers(changed, new_plan, fed), expected)
    for signed in (False, True):
        np.testing.assert_array_equal(in_the_runtime(changed, new_plan, fed, signed=signed), expected)
    return changed, new_plan


@settings(max_examples=60)
@given(
    st.integers(1, 6).filter(lambda channels: channels % 4),
    st.sampled_from([4, 16, 24]),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 4])),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(3, 12), st.integers(1, 5)),
    st.sampled_from(["", "Relu", "Clip"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**16),
)
@example(3, 32, (3, 3), (2, 2), (1, 1), (8, 2), "Clip", True, True, 0)
@example(3, 16, (7, 7), (2, 2), (3, 3), (9, 3), "Relu", True, True, 0)
@example(3, 16, (4, 4), (4, 4), (0, 0), (8, 2), "", True, True, 0)
def test_groups_of_pixels_give_the_same_integers(
    channels: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    clamp: str,
    per_channel: bool,
    bias: bool,
    seed: int,
) -> None:
    high, wide = size[0], size[1] * 4
    assume(kernel[0] <= high + 2 * padding[0] and kernel[1] <= wide + 2 * padding[1])
    torch.manual_seed(seed)
    layer = nn.Conv2d(channels, outputs, kernel, stride, padding, bias=bias)
    proto, plan = one_layer(layer, (high, wide), clamp, per_channel, seed)
    changed, new_plan = same_everywhere(grouped, proto, plan, (2, channels, high, wide), seed)
    across = (wide + 2 * padding[1] - kernel[1]) // stride[1] + 1
    fits = across * stride[1] == wide and padding[1] < kernel[1] and outputs * (4 // stride[1]) >= 16
    assert (new_plan.weights["w"].shape != plan.weights["w"].shape) == fits
    if fits:
        assert new_plan.weights["w"].shape[:2] == (outputs * (4 // stride[1]), channels * 4)
        assert [node.op_type for node in changed.graph.node].count("Transpose") == 4


def test_what_a_layer_of_groups_multiplies() -> None:
    """Worked by hand: pixels 0 to 3 are a group; stride 2 writes two outputs of each, of pixels 0 to 2 and 2 to 4."""
    layer = nn.Conv2d(1, 16, (1, 3), (1, 2), bias=False)
    layer.weight.data[:] = torch.tensor([1.0, 2.0, 127.0]) / 127
    proto, plan = one_layer(layer, (1, 8), "", True, 0)
    pads = next(each for each in proto.graph.node[0].attribute if each.name == "pads")
    pads.ints[:] = [0, 0, 0, 1]
    _, changed = grouped(proto, plan)
    weight = changed.weights["w"]
    assert weight.shape == (32, 4, 1, 2)
    q = weight.packed.view(torch.int8).reshape(weight.shape)
    assert q[0, :, 0].tolist() == [[1, 0], [2, 0], [127, 0], [0, 0]]
    assert q[16, :, 0].tolist() == [[0, 127], [0, 0], [1, 0], [2, 0]]


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(4, 16, 3, padding=1), (8, 8)),
        (nn.Conv2d(3, 16, 3, padding=1), (8, 10)),
        (nn.Conv2d(3, 16, 3, stride=3, padding=1), (9, 12)),
        (nn.Conv2d(3, 16, 3), (8, 8)),
        (nn.Conv2d(3, 16, 3, dilation=2, padding=2), (8, 8)),
        (nn.Conv2d(3, 18, 3, padding=1, groups=3), (8, 8)),
        (nn.Conv2d(3, 16, 9, padding=4), (12, 12)),
        (nn.Conv2d(3, 2, 3, padding=1), (8, 8)),
    ],
    ids=[
        "four channels",
        "width",
        "stride",
        "no whole groups",
        "dilated",
        "grouped",
        "wide kernel",
        "few outputs",
    ],
)
def test_layers_that_stay_as_they_are(layer: nn.Conv2d, size: tuple[int, int]) -> None:
    proto, plan = one_layer(layer, size, "", True, 0)
    changed, new_plan = grouped(proto, plan)
    assert changed.SerializeToString() == proto.SerializeToString()
    assert new_plan == plan


@settings(max_examples=20)
@given(
    st.integers(LEAST_CHANNELS, LEAST_CHANNELS + 40),
    st.integers(1, 40),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from(["", "Relu", "Clip"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_deep_products_give_the_same_integers(
    channels: int,
    outputs: int,
    size: tuple[int, int],
    clamp: str,
    per_channel: bool,
    bias: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    layer = nn.Conv2d(channels, outputs, 1, bias=bias)
    proto, plan = one_layer(layer, size, clamp, per_channel, seed)
    changed, new_plan = same_everywhere(deep, proto, plan, (2, channels, *size), seed)
    assert [node.op_type for node in changed.graph.node if node.op_type in ("Conv", "Gemm")] == ["Gemm"]
    assert new_plan.weights["w"].shape == (outputs, channels)
    assert torch.equal(new_plan.weights["w"].packed, plan.weights["w"].packed)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(LEAST_CHANNELS - 1, 8, 1),
        nn.Conv2d(LEAST_CHANNELS, 8, 1, stride=2),
        nn.Conv2d(LEAST_CHANNELS, 8, 1, padding=1),
        nn.Conv2d(LEAST_CHANNELS, 8, (1, 2)),
        nn.Conv2d(2 * LEAST_CHANNELS, 8, 1, groups=2),
    ],
    ids=["shallow", "strided", "padded", "not pointwise", "grouped"],
)
def test_convolutions_that_stay(layer: nn.Conv2d) -> None:
    proto, plan = one_layer(layer, (4, 4), "", True, 0)
    changed, new_plan = deep(proto, plan)
    assert changed.graph.node[0].op_type == "Conv"
    assert new_plan.weights["w"].shape == plan.weights["w"].shape


def test_without_amx_and_without_sizes_nothing_becomes_a_product() -> None:
    proto, plan = one_layer(nn.Conv2d(LEAST_CHANNELS, 8, 1), (4, 4), "", True, 0)
    assert laid_out(proto, plan, VNNI) == (proto, plan)
    assert laid_out(proto, plan, AMX)[0].graph.node[0].op_type == "Transpose"
    free = onnx.ModelProto.FromString(proto.SerializeToString())
    for dim in free.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "size"
    assert deep(free, plan)[0].graph.node[0].op_type == "Conv"


class Images(nn.Module):
    """Two layers read the image, two deep pointwise ones the same features; one weight is large."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(3, 16, 3, 2, 1)
        self.wide = nn.Conv2d(16, LEAST_CHANNELS, 1)
        self.left, self.right = nn.Conv2d(LEAST_CHANNELS, 256, 1), nn.Conv2d(LEAST_CHANNELS, 256, 1)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x)) + torch.relu(self.other(x))
        y = torch.relu(self.wide(y))
        y = torch.relu(self.left(y)) + self.right(y)
        logits: Tensor = self.head(self.pool(y).flatten(1))
        return logits


@pytest.fixture(scope="module")
def quantized() -> tuple[Compressed, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 32, 32)
    return quantize_model(Images().eval(), Split((x,), torch.zeros(16)), (x[:2],)), x


def written_on(
    isa: tuple[str, ...], compressed: Compressed, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> onnx.ModelProto:
    module = importlib.import_module("tinypress.ship.to_onnx")
    found = module.machine(1).model_copy(update={"isa": isa})
    monkeypatch.setattr(module, "machine", lambda threads: found)
    return to_onnx(compressed, (x[:2],))


def answer(written: onnx.ModelProto, x: Tensor) -> Array:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    found: Array = onnxruntime.InferenceSession(written.SerializeToString(), options).run(
        None, {"x": x.numpy()}
    )[0]
    return found


def stored_shapes(written: onnx.ModelProto) -> Mapping[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in written.graph.initializer}


def test_the_file_has_the_layout_of_its_processor_and_the_same_answers(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    plain = written_on(("avx2",), compressed, x, monkeypatch)
    files = {isa[-1]: written_on(isa, compressed, x, monkeypatch) for isa in (VNNI, AMX)}
    assert stored_shapes(plain)["stem.weight"] == (16, 3, 3, 3)
    assert stored_shapes(plain)["left.weight"] == (256, LEAST_CHANNELS, 1, 1)
    for name, file in files.items():
        assert stored_shapes(file)["stem.weight"] == stored_shapes(file)["other.weight"] == (32, 12, 3, 2)
        deep = (256, LEAST_CHANNELS) if name == "amx_int8" else (256, LEAST_CHANNELS, 1, 1)
        assert stored_shapes(file)["left.weight"] == stored_shapes(file)["right.weight"] == deep
        np.testing.assert_array_equal(answer(file, x), answer(plain, x))


def test_the_runtime_has_an_integer_kernel_for_every_layer_of_such_a_file(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    written = written_on(AMX, compressed, x, monkeypatch)
    kinds = [node.op_type for node in optimized_graph(written.SerializeToString()).node]
    assert set(kinds) <= {*INTEGER_KERNELS, "QuantizeLinear", "Reshape", "Transpose"}
    assert kinds.count("QLinearConv") == 3
    assert kinds.count("QGemm") == 3


def test_such_a_file_is_read_back_and_compared(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    written = written_on(AMX, compressed, x, monkeypatch)
    proto, plan = plan_of_file(written)
    ours = evaluate(program_of(proto, plan), {"x": x.numpy()}, "float32")
    assert np.allclose(np.asarray(ours, float), np.asarray(answer(written, x), float), rtol=1e-5, atol=1e-6)
    # the same layout with weights that no kernel saturates on: every layer is compared, bit by bit, on any processor
    unsigned = importlib.import_module("tinypress.ship.to_onnx").with_integers(
        onnx.ModelProto.FromString(proto.SerializeToString()), plan
    )
    compared, count = compare_with_reference("here", unsigned, proto, plan, (x.numpy(),))
    assert count > 0
    assert [layer.kind for layer in compared].count("product") == 5
    assert all(layer.differing == 0 for layer in compared)


def test_a_file_grows_by_a_hundredth_at_most(quantized: tuple[Compressed, Tensor]) -> None:
    compressed, x = quantized
    assert compressed.plan is not None
    proto = importlib.import_module("tinypress.ship.to_onnx").to_float_onnx(compressed.model, (x[:2],))
    weights = compressed.plan.weights
    grown = 32 * 12 * 3 * 2 - 16 * 3 * 3 * 3
    total = sum(math.prod(weight.shape) for weight in weights.values())
    for growth, expected in ((grown / total, True), (0.99 * grown / total, False)):
        _, plan = grouped(proto, compressed.plan, growth)
        assert (plan.weights["stem.weight"].shape != weights["stem.weight"].shape) is expected


def test_a_weight_that_two_layers_read_keeps_its_shape(quantized: tuple[Compressed, Tensor]) -> None:
    compressed, x = quantized
    plan = compressed.plan
    assert plan is not None
    proto = importlib.import_module("tinypress.ship.to_onnx").to_float_onnx(compressed.model, (x[:2],))
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = {"other.weight": "stem.weight", "right.weight": "left.weight"}.get(name, name)
    tied = replace(
        plan, weights={k: v for k, v in plan.weights.items() if k not in ("other.weight", "right.weight")}
    )
    for rewrite in (grouped, deep):
        _, changed = rewrite(proto, tied)
        assert {name: weight.shape for name, weight in changed.weights.items()} == {
            name: weight.shape for name, weight in tied.weights.items()
        }


def test_a_bias_that_two_layers_read_keeps_its_length(quantized: tuple[Compressed, Tensor]) -> None:
    compressed, x = quantized
    assert compressed.plan is not None
    proto = importlib.import_module("tinypress.ship.to_onnx").to_float_onnx(compressed.model, (x[:2],))
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = {"other.bias": "stem.bias"}.get(name, name)
    _, changed = grouped(proto, compressed.plan)
    assert changed.weights["stem.weight"].shape == (16, 3, 3, 3)


def test_the_shipped_bytes_open_in_the_runtime(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    written = written_on(AMX, compressed, x, monkeypatch)
    for batch in (1, 3):
        assert open_onnx(written.SerializeToString()).run([x[:batch].numpy()]).shape == (batch, 5)


class Turned(nn.Module):
    """A deep pointwise layer reads the weight of another one the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Conv2d(64, LEAST_CHANNELS, 1), nn.Linear(64, 4)
        self.stem = nn.Conv2d(3, 64, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.wide(torch.relu(self.stem(x))))
        back = nn.functional.conv2d(y, self.wide.weight.transpose(0, 1))
        logits: Tensor = self.head(back.mean((2, 3)))
        return logits


def test_a_weight_that_is_read_turned_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 16, 16)
    made = quantize_model(Turned().eval(), Split((x,), torch.zeros(16)), (x[:2],), per_channel=False)
    plain, laid = (written_on(isa, made, x, monkeypatch) for isa in (("avx2",), AMX))
    assert stored_shapes(laid) == stored_shapes(plain)
    assert [node.op_type for node in laid.graph.node] == [node.op_type for node in plain.graph.node]


@pytest.mark.parametrize("name", ["c:groups", "v:before0", "v:after1", "v:rows"])
def test_names_that_would_be_taken_twice(name: str) -> None:
    layer = nn.Conv2d(LEAST_CHANNELS, 16, 1)
    proto, plan = one_layer(layer, (4, 4), "Relu", True, 0)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if each == "c" else each for each in names]
    changed, same = laid_out(proto, plan, AMX)
    assert changed.SerializeToString() == proto.SerializeToString()
    assert same == plan
