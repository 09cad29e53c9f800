"""Integers end to end in a row of bytes: what goes in comes out, in exactly as many bytes as it must."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinypress import bits as bits_module
from tinypress.bits import pack, unpack
from tinypress.errors import InputError


def plainly_packed(values: list[int], bits: int) -> list[int]:
    row = sum((value & ((1 << bits) - 1)) << (number * bits) for number, value in enumerate(values))
    return list(row.to_bytes(-(-len(values) * bits // 8), "little"))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
@given(data=st.data())
def test_round_trip(bits: int, signed: bool, data: st.DataObject):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = data.draw(st.lists(st.integers(low, high), max_size=70))
    tensor = torch.tensor(values, dtype=torch.int8 if signed else torch.uint8)
    packed = pack(tensor, bits)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == plainly_packed(values, bits)
    back = unpack(packed, bits, len(values), signed=signed)
    assert back.dtype == tensor.dtype
    assert back.tolist() == values


@pytest.mark.parametrize("bits", range(2, 9))
def test_across_blocks_and_from_odd_addresses(bits: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bits_module, "_BLOCK", 64)
    whole = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (1 + 7 * 43,), dtype=torch.int8)
    tensor = whole[1:].view(7, 43)
    packed = pack(tensor, bits)
    assert packed.tolist() == plainly_packed(tensor.flatten().tolist(), bits)
    for offset in (0, 3):
        moved = torch.cat([torch.zeros(offset, dtype=torch.uint8), packed])[offset:]
        assert torch.equal(unpack(moved, bits, 301, signed=True), tensor.flatten())


def test_two_halves_of_a_byte():
    assert pack(torch.tensor([1, -2, 7], dtype=torch.int8), 4).tolist() == [0xE1, 0x07]
    assert pack(torch.tensor([[3, 0], [1, 2]], dtype=torch.uint8).T, 2).tolist() == [0b10_00_01_11]


@pytest.mark.parametrize(("bits", "count", "size"), [(4, 9, 5), (3, 8, 3), (3, 9, 4), (8, 9, 9), (7, 0, 0)])
def test_byte_counts(bits: int, count: int, size: int):
    assert pack(torch.zeros(count, dtype=torch.uint8), bits).numel() == size


@pytest.mark.parametrize("bits", [1, 9, True, 4.0, np.float32(4)])
def test_other_widths_are_refused(bits):
    with pytest.raises(InputError, match="from 2 to 8"):
        pack(torch.zeros(3, dtype=torch.uint8), bits)
    with pytest.raises(InputError, match="from 2 to 8"):
        unpack(torch.zeros(3, dtype=torch.uint8), bits, 3, signed=False)


@pytest.mark.parametrize(
    "values", [torch.tensor([8], dtype=torch.int8), torch.tensor([-9], dtype=torch.int8)], ids=str
)
def test_values_that_do_not_fit_are_refused(values: torch.Tensor):
    with pytest.raises(InputError, match="4 bits hold -8 to 7"):
        pack(values, 4)
    with pytest.raises(InputError, match="neither int8 nor uint8"):
        pack(values.int(), 4)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_row_of_another_length_is_refused(size: int):
    with pytest.raises(InputError, match="3 integers of 4 bits are 2 bytes"):
        unpack(torch.zeros(size, dtype=torch.uint8), 4, 3, signed=True)


@pytest.mark.parametrize("bits", [3, 4, 7])
def test_bits_after_the_last_integer_must_be_zero(bits: int):
    packed = pack(torch.zeros(3, dtype=torch.uint8), bits)
    packed[-1] = 0x80
    with pytest.raises(InputError, match="bits after the last integer"):
        unpack(packed, bits, 3, signed=False)


@pytest.mark.parametrize("count", [-1, True, 2.0])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(InputError, match="count"):
        unpack(torch.zeros(1, dtype=torch.uint8), 4, count, signed=False)
