"""The weights of a layer as integers, held against a plain implementation of the equations."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tinypress.quantize.rows as rows_module
from tinypress.bits import unpack
from tinypress.errors import InputError, ModelError
from tinypress.facts import QuantizedWeight
from tinypress.quantize.layer import dequantize_layer_weights, quantize_layer_weights

SCHEMES = ["symmetric", "affine"]
EDGES = np.array([0.0, 1e-45, -1e-40, 1e38, 1.5], dtype=np.float32).tolist()


def layer_with(weight: Tensor) -> nn.Module:
    layer = nn.Linear(1, 1, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight)
    return layer


def integers(quantized: QuantizedWeight) -> Tensor:
    signed = quantized.scheme == "symmetric"
    return unpack(quantized.packed, quantized.bits, math.prod(quantized.shape), signed=signed).view(
        quantized.shape
    )


def plainly(values: list[float], bits: int, scheme: str) -> tuple[np.float32, int, list[int]]:
    """Scale, zero point and integers of one channel, a number at a time."""
    if scheme == "symmetric":
        most = 2 ** (bits - 1) - 1
        least, width = -most, max(abs(v) for v in values)
    else:
        least, most = 0, 2**bits - 1
        width = max(max(values), 0.0) - min(min(values), 0.0)
    scale = np.float32(1.0) if width == 0 else max(np.float32(width / most), np.finfo(np.float32).tiny)
    zero_point = 0
    if scheme == "affine":
        zero_point = min(max(round(-min(min(values), 0.0) / float(scale)), least), most)
    q = [min(max(round(float(np.float32(v) / scale)) + zero_point, least), most) for v in values]
    return scale, zero_point, q


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", range(2, 9))
@settings(max_examples=25)
@given(
    rows=st.integers(1, 9).flatmap(
        lambda width: st.lists(
            st.lists(
                st.floats(-10, 10, width=32) | st.sampled_from(EDGES),
                min_size=width,
                max_size=width,
            ),
            min_size=1,
            max_size=5,
        )
    )
)
def test_the_equations(bits: int, scheme, rows: list[list[float]]):
    weight = torch.tensor(rows)
    per_channel = quantize_layer_weights(layer_with(weight), bits, scheme=scheme)
    for row, scale, zero_point, q in zip(
        rows, per_channel.scale, per_channel.zero_point, integers(per_channel), strict=True
    ):
        assert (scale.item(), zero_point.item(), q.tolist()) == plainly(row, bits, scheme)
    whole = quantize_layer_weights(layer_with(weight), bits, scheme=scheme, per_channel=False)
    flat = [value for row in rows for value in row]
    assert (whole.scale.item(), whole.zero_point.item(), integers(whole).flatten().tolist()) == plainly(
        flat, bits, scheme
    )
    for quantized in (per_channel, whole):
        back = dequantize_layer_weights(quantized)
        assert back.dtype == torch.float32
        assert bool(back.isfinite().all())
        assert bool((back[weight == 0] == 0).all())
        step = quantized.scale.max()
        assert float((back - weight).abs().max()) <= float(step) * 1.01


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("per_channel", [True, False])
def test_zero_stays_exactly_zero(bits: int, scheme, per_channel: bool):
    for low, high in ((-1.0, 1.0), (0.2, 3.0), (-3.0, -0.2), (-0.1, 9.0), (0.0, 0.0)):
        weight = torch.empty(6, 50).uniform_(low, high)
        weight[:, ::3] = 0.0
        quantized = quantize_layer_weights(layer_with(weight), bits, scheme=scheme, per_channel=per_channel)
        back = dequantize_layer_weights(quantized)
        assert bool((back[:, ::3] == 0.0).all())


def test_halves_go_to_the_even_neighbour():
    weight = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]])
    quantized = quantize_layer_weights(layer_with(weight))
    assert quantized.scale.tolist() == [1.0]
    assert integers(quantized).tolist() == [[127, 0, 2, 2, 0, -2, -2]]
    affine = quantize_layer_weights(layer_with(torch.tensor([[255.0, 0.5, 1.5, 2.5]])), scheme="affine")
    assert integers(affine).tolist() == [[255, 0, 2, 2]]


def test_it_divides_and_does_not_multiply_by_the_inverse():
    weight = torch.randn(200, 400)
    quantized = quantize_layer_weights(layer_with(weight))
    plain = (weight.numpy() / quantized.scale.numpy()[:, None]).round()
    assert np.array_equal(integers(quantized).numpy(), plain)


def test_an_affine_range_holds_zero():
    above = quantize_layer_weights(layer_with(torch.tensor([[1.0, 3.0]])), scheme="affine")
    below = quantize_layer_weights(layer_with(torch.tensor([[-3.0, -1.0]])), scheme="affine")
    assert above.scale.tolist() == below.scale.tolist() == pytest.approx([3 / 255])
    assert above.zero_point.tolist() == [0]
    assert below.zero_point.tolist() == [255]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_constant_zero_and_tiny_channels(bits: int, scheme):
    weight = torch.tensor(
        [[0.0, -0.0], [3.0, 3.0], [-3.0, -3.0], [1e-45, -1e-45], [1e-39, 0.0], [1e38, -1e38]]
    )
    quantized = quantize_layer_weights(layer_with(weight), bits, scheme=scheme)
    assert quantized.scale[0] == 1.0
    assert bool(quantized.scale.isfinite().all())
    assert float(quantized.scale.min()) >= torch.finfo(torch.float32).tiny
    back = dequantize_layer_weights(quantized)
    assert torch.allclose(back[:3], weight[:3])
    assert bool(back.isfinite().all())


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (nn.Linear(12, 5), 0),
        (nn.Conv1d(4, 6, 3), 0),
        (nn.Conv2d(4, 6, 3, groups=2), 0),
        (nn.ConvTranspose1d(4, 6, 3), 1),
        (nn.ConvTranspose2d(4, 6, 3), 1),
        (nn.ConvTranspose3d(4, 6, 2), 1),
        (nn.Embedding(7, 3), 0),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_output_channel_has_a_scale(layer: nn.Module, axis: int, scheme):
    with torch.no_grad():
        layer.weight.mul_(
            torch.rand(layer.weight.shape[axis]).view([-1] + [1] * (layer.weight.ndim - 1 - axis))
        )
    before = copy.deepcopy(layer.state_dict())
    quantized = quantize_layer_weights(layer, 5, scheme=scheme)
    assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)
    assert quantized.axis == axis
    assert quantized.shape == tuple(layer.weight.shape)
    for index in range(layer.weight.shape[axis]):
        channel = layer.weight.detach().select(axis, index)
        scale, zero_point, q = plainly(channel.flatten().tolist(), 5, scheme)
        assert quantized.scale[index].item() == scale
        assert quantized.zero_point[index].item() == zero_point
        assert integers(quantized).select(axis, index).flatten().tolist() == q
    error = (dequantize_layer_weights(quantized) - layer.weight).abs().amax()
    assert error <= quantized.scale.max() * (0.51 if scheme == "symmetric" else 1.01)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("per_channel", [True, False])
def test_blocks_do_not_show(scheme, per_channel: bool, monkeypatch: pytest.MonkeyPatch):
    layer = nn.Linear(23, 31)
    whole = quantize_layer_weights(layer, 6, scheme=scheme, per_channel=per_channel)
    for block in (1, 50, 100):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        parts = quantize_layer_weights(layer, 6, scheme=scheme, per_channel=per_channel)
        assert torch.equal(parts.packed, whole.packed)
        assert torch.equal(parts.scale, whole.scale)
        assert torch.equal(parts.zero_point, whole.zero_point)


@pytest.mark.parametrize(("bits", "size"), [(8, 35), (4, 18), (3, 14), (2, 9)])
def test_bytes(bits: int, size: int):
    quantized = quantize_layer_weights(nn.Linear(7, 5), bits)
    assert quantized.packed.shape == (size,)
    assert quantized.packed.dtype == torch.uint8
    assert quantized.scale.dtype == torch.float32
    assert quantized.zero_point.dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_read_as_float32(dtype: torch.dtype):
    layer = nn.Linear(9, 4).to(dtype)
    as_float32 = copy.deepcopy(layer).float()
    assert torch.equal(quantize_layer_weights(layer).packed, quantize_layer_weights(as_float32).packed)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_layers_without_weights(shape: tuple[int, int], per_channel: bool):
    quantized = quantize_layer_weights(layer_with(torch.empty(shape)), per_channel=per_channel)
    assert dequantize_layer_weights(quantized).shape == shape


@pytest.mark.parametrize(
    "settings",
    [{"bits": 1}, {"bits": 9}, {"bits": True}, {"bits": 4.0}, {"bits": "8"}, {"scheme": "dynamic"}],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(InputError, match=r"quantize_layer_weights\(Linear"):
        quantize_layer_weights(nn.Linear(2, 2), **settings)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", [nn.Linear, nn.ConvTranspose1d])
def test_weights_that_cannot_be_quantized_are_refused(bad: float, per_channel: bool, kind):
    layer = kind(4, 4, *([2] if kind is not nn.Linear else []))
    with torch.no_grad():
        layer.weight[2, 1] = bad
    with pytest.raises(ModelError, match="'weight' holds NaN"):
        quantize_layer_weights(layer, per_channel=per_channel)


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.LSTM(2, 2), nn.LazyLinear(2), nn.Linear(2, 2, device="meta")]
)
def test_layers_without_a_weight_are_refused(layer: nn.Module):
    with pytest.raises(ModelError):
        quantize_layer_weights(layer)


def test_truncated_integers_are_refused():
    quantized = quantize_layer_weights(nn.Linear(4, 4), 4)
    short = QuantizedWeight(
        quantized.packed[:-1], (4, 4), 4, "symmetric", 0, quantized.scale, quantized.zero_point
    )
    with pytest.raises(InputError, match="8 bytes, and there are 7"):
        dequantize_layer_weights(short)
    lacking = QuantizedWeight(
        quantized.packed, (4, 4), 4, "symmetric", 0, quantized.scale[:2], quantized.zero_point
    )
    with pytest.raises(InputError, match="2 scales"):
        dequantize_layer_weights(lacking)
