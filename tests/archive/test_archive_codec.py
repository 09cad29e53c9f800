"""One tensor through the codecs: bit by bit the same, and never longer than dense."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinypress.archive.bitmap import bitmap_bytes, pack_mask, unpack_mask
from tinypress.archive.encode import decode, dequantize, encode, nonzero
from tinypress.bits import pack
from tinypress.facts import QuantizedWeight

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def _bits_equal(one, other):
    same = one.dtype == other.dtype and one.shape == other.shape
    return (
        same
        and one.contiguous().numpy(force=True).tobytes() == other.contiguous().numpy(force=True).tobytes()
    )


@given(hnp.arrays(np.bool_, st.integers(0, 70)))
def test_a_mask_comes_back_from_its_bitmap(mask):
    bitmap = pack_mask(mask)
    assert len(bitmap) == bitmap_bytes(mask.size)
    assert np.array_equal(unpack_mask(bitmap, mask.size), mask)


def test_the_first_weight_has_the_lowest_bit():
    assert pack_mask(np.array([True, False, False, True, False, False, False, False, True])) == b"\x09\x01"


def test_a_bitmap_with_a_padding_bit_or_another_length_is_refused():
    with pytest.raises(ValueError, match="padding"):
        unpack_mask(b"\x20", 5)
    with pytest.raises(ValueError, match="2 bytes for 5"):
        unpack_mask(b"\x01\x00", 5)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)),
    st.floats(0, 1),
)
def test_a_float_tensor_comes_back_bit_by_bit(values, sparsity):
    # hypothesis draws -0, infinity, NaN and subnormal numbers
    if values.size:
        values.reshape(-1)[: int(sparsity * values.size)] = 0
    tensor = torch.from_numpy(values)
    row, data = encode("weight", tensor, None)
    assert sum(row.parts_bytes) == len(data) <= values.nbytes
    assert _bits_equal(decode(row, memoryview(data)).tensor, tensor)
    assert nonzero(row, memoryview(data)) == np.count_nonzero(values)


@pytest.mark.parametrize("dtype", _FLOATS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_float_dtype_dense_and_sparse(dtype, share):
    torch.manual_seed(0)
    tensor = (torch.randn(7, 5) * (torch.rand(7, 5) < share)).to(dtype) + 0
    row, data = encode("weight", tensor, None)
    back = decode(row, memoryview(data)).tensor
    assert back.dtype == dtype
    assert torch.equal(back, tensor)
    assert (row.kept is None) == (share == 1.0)


@pytest.mark.parametrize("dtype", _INTEGERS)
def test_integer_buffers_stay_dense(dtype):
    tensor = torch.tensor([[0, 1, 0], [0, 0, 1]]).to(dtype)
    row, data = encode("mask", tensor, None)
    assert row.kept is None
    assert len(data) == 6 * dtype.itemsize
    assert torch.equal(decode(row, memoryview(data)).tensor, tensor)


def test_negative_zero_survives_a_bitmap():
    tensor = torch.zeros(64)
    tensor[5] = -0.0
    row, data = encode("weight", tensor, None)
    assert row.kept == 1
    assert _bits_equal(decode(row, memoryview(data)).tensor, tensor)
    assert nonzero(row, memoryview(data)) == 0


def test_a_transposed_tensor_is_stored_in_row_major_order():
    tensor = torch.arange(6.0).reshape(2, 3).T
    row, data = encode("weight", tensor, None)
    assert torch.equal(decode(row, memoryview(data)).tensor, tensor)


def test_complex_numbers_are_refused():
    with pytest.raises(ValueError, match="complex64"):
        encode("weight", torch.zeros(2, dtype=torch.complex64), None)


@st.composite
def _weights(draw):
    bits = draw(st.integers(2, 8))
    scheme = draw(st.sampled_from(["symmetric", "affine"]))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=7))
    axis = draw(st.sampled_from([None, *range(len(shape))]))
    low, high = (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if scheme == "symmetric" else (0, 2**bits - 1)
    integers = draw(hnp.arrays(np.int16, shape, elements=st.integers(low, high), fill=st.just(0)))
    group = None if axis is None else draw(st.sampled_from([None, 1, 2, 3, 50]))
    width = int(np.prod(shape)) // (1 if axis is None else shape[axis])
    scales = (1 if axis is None else shape[axis]) * (1 if group is None else -(-width // group))
    positive = st.floats(2.0**-20, 2.0**20, width=32)
    scale = draw(hnp.arrays(np.float32, scales, elements=positive))
    zeros = np.zeros(scales, dtype=np.int32)
    if scheme == "affine":
        zeros = draw(hnp.arrays(np.int32, scales, elements=st.integers(0, high)))
    narrow = np.int8 if scheme == "symmetric" else np.uint8
    packed = pack(torch.from_numpy(integers.astype(narrow)), bits)
    balance = None
    if len(shape) > 1 and draw(st.booleans()):
        balance = torch.from_numpy(draw(hnp.arrays(np.float32, shape[1], elements=positive)))
    return QuantizedWeight(
        packed,
        shape,
        bits,
        scheme,
        axis,
        torch.from_numpy(scale),
        torch.from_numpy(zeros),
        group,
        balance,
    )


@settings(max_examples=150)
@given(_weights())
def test_integers_come_back_with_scale_and_zero_point(weight):
    row, data = encode("weight", dequantize(weight), weight)
    dense = -(-weight.bits * row.count // 8)
    balance = 0 if weight.input_scale is None else 4 * weight.shape[1]
    assert sum(row.parts_bytes) == len(data) <= dense + 5 * row.scales + balance
    back = decode(row, memoryview(data))
    assert _bits_equal(back.tensor, dequantize(weight))
    again = back.weight
    for field in ("shape", "bits", "scheme", "axis", "group_size"):
        assert getattr(again, field) == getattr(weight, field)
    assert (again.input_scale is None) == (weight.input_scale is None)
    if again.input_scale is not None:
        assert torch.equal(again.input_scale, weight.input_scale)
    assert torch.equal(again.packed, weight.packed)
    assert torch.equal(again.scale, weight.scale)
    assert torch.equal(again.zero_point, weight.zero_point)
    assert nonzero(row, memoryview(data)) == torch.count_nonzero(back.tensor)


def test_dequantize_by_hand():
    # affine, axis 1: columns with scale 0.5 and 2, zero points 1 and 0
    packed = pack(torch.tensor([[1, 3], [0, 2]], dtype=torch.uint8), 2)
    weight = QuantizedWeight(
        packed, (2, 2), 2, "affine", 1, torch.tensor([0.5, 2.0]), torch.tensor([1, 0], dtype=torch.int32)
    )
    assert dequantize(weight).tolist() == [[0.0, 6.0], [-0.5, 4.0]]


def test_dequantize_groups_by_hand():
    # rows of three weights in groups of two, so that the second group is short; inputs divided by 1, 2, 4
    packed = pack(torch.tensor([[1, 2, 3], [-1, -2, 3]], dtype=torch.int8), 3)
    scale, zeros = torch.tensor([1.0, 10.0, 0.5, 100.0]), torch.zeros(4, dtype=torch.int32)
    weight = QuantizedWeight(packed, (2, 3), 3, "symmetric", 0, scale, zeros, 2)
    assert dequantize(weight).tolist() == [[1.0, 2.0, 30.0], [-0.5, -1.0, 300.0]]
    balanced = replace(weight, input_scale=torch.tensor([1.0, 2.0, 4.0]))
    assert dequantize(balanced).tolist() == [[1.0, 1.0, 7.5], [-0.5, -0.5, 75.0]]
    columns = replace(weight, shape=(3, 2), axis=1, packed=pack(torch.ones(3, 2, dtype=torch.int8), 3))
    assert dequantize(columns).tolist() == [[1.0, 0.5], [1.0, 0.5], [10.0, 100.0]]


def test_zeros_of_an_affine_weight_are_where_its_zero_point_is():
    integers = torch.full((4, 32), 9, dtype=torch.uint8)
    integers[0, :3] = torch.tensor([0, 15, 4])
    weight = QuantizedWeight(
        pack(integers, 4),
        (4, 32),
        4,
        "affine",
        None,
        torch.tensor([0.25]),
        torch.tensor([9], dtype=torch.int32),
    )
    row, data = encode("weight", dequantize(weight), weight)
    assert row.kept == 3
    assert len(data) == 4 + 1 + 16 + 2  # scale, zero point, bitmap, three half bytes
    assert torch.equal(decode(row, memoryview(data)).weight.packed, weight.packed)


def test_the_smaller_of_dense_and_sparse_is_taken_at_the_very_edge():
    # 64 weights of 8 bits: the bitmap costs 8 bytes, so it pays from 55 values down
    for left, sparse in ((56, False), (55, True)):
        integers = torch.zeros(64, dtype=torch.int8)
        integers[:left] = 1
        weight = QuantizedWeight(
            pack(integers, 8),
            (64,),
            8,
            "symmetric",
            None,
            torch.ones(1),
            torch.zeros(1, dtype=torch.int32),
        )
        row, data = encode("weight", dequantize(weight), weight)
        assert (row.kept is not None) == sparse
        assert len(data) == (67 if sparse else 68)
