"""One tensor as bytes and back, bit by bit the same, in the smallest of the ways that an archive knows.

A float tensor is dense, or a bitmap and the values that are not +0 (so -0 survives). An integer weight is
dense at its bits, or a bitmap and the integers that are not its zero point. Everything is little-endian;
packed integers lie as ``QuantizedWeight`` says. Functions here raise ValueError; their callers know the file.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinypress.archive.bitmap import bitmap_bytes, pack_mask, unpack_mask
from tinypress.archive.plan import DTYPES, StoredTensor
from tinypress.bits import pack, packed_bytes, unpack
from tinypress.facts import QuantizedWeight

T = TypeVar("T", bound=np.generic)

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Decoded:
    """The tensor, and its integers where it is quantized."""

    tensor: Tensor
    weight: QuantizedWeight | None


def encode(name: str, tensor: Tensor, weight: QuantizedWeight | None) -> tuple[StoredTensor, bytes]:
    """The row and the bytes of one tensor; ``weight`` gives its integers.

    Raises:
        ValueError: a dtype that an archive does not know, or integers that are not those of the tensor.
    """
    places = {dtype: place for place, (_, dtype) in enumerate(DTYPES)}
    if tensor.dtype not in places:
        raise ValueError(f"its dtype {tensor.dtype} cannot be stored")
    if weight is not None and not weight.is_half:
        return _encode_integers(name, tensor, places[tensor.dtype], weight)
    half: Literal["float16", "bfloat16"] | None = None
    if weight is not None and (weight.scheme == "float16" or weight.scheme == "bfloat16"):
        half = weight.scheme
        _check_halves(tensor, weight)
        raw = _raw(weight.packed.view(_HALVES[half]))
    else:
        raw = _raw(tensor)
    kept, data = None, raw.tobytes()
    if tensor.dtype.is_floating_point:
        mask = raw != 0
        sparse = bitmap_bytes(raw.size) + int(mask.sum()) * raw.itemsize
        if sparse < len(data):
            kept, data = int(mask.sum()), pack_mask(mask) + raw[mask].tobytes()
    dtype = places[tensor.dtype]
    row = StoredTensor(name=name, shape=tuple(tensor.shape), dtype=dtype, kept=kept, half=half)
    return row, data


def decode(row: StoredTensor, data: memoryview) -> Decoded:
    """What ``encode`` was given; ``data`` holds the bytes of this tensor alone.

    Raises:
        ValueError: bytes that ``encode`` would not have written.
    """
    if row.bits is not None:
        weight = _decode_integers(row, data)
        return Decoded(dequantize(weight).to(row.torch_dtype), weight)
    _, _, _, bitmap, values = _parts(row, data)
    stored = row.torch_dtype if row.half is None else _HALVES[row.half]
    raw = np.frombuffer(values, dtype=_raw_type(stored))
    if row.kept is not None:
        raw = _spread(row, bitmap, raw, np.zeros(row.count, dtype=raw.dtype))
    if row.torch_dtype == torch.bool and raw.size and int(raw.max()) > 1:
        raise ValueError("a BOOL is neither 0 nor 1")
    same_size = raw.astype(raw.dtype.newbyteorder("="), copy=True).view(_numpy_type(stored))
    tensor = torch.from_numpy(same_size).view(stored).reshape(row.shape)
    if row.half is None:
        return Decoded(tensor, None)
    one, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    packed = tensor.reshape(-1).view(torch.uint8)
    weight = QuantizedWeight(packed, row.shape, 16, row.half, None, one, zero)
    return Decoded(tensor.to(row.torch_dtype), weight)


def dequantize(weight: QuantizedWeight) -> Tensor:
    """(q - zero point) × scale, over the input scale where there is one: float32 in the shape of the weight."""
    integers, zeros = _integers(weight)
    scale = along(weight.scale.numpy(), weight.shape, weight.axis, weight.group_size)
    real = torch.from_numpy((integers - zeros).astype(np.float32) * scale).reshape(weight.shape)
    if weight.input_scale is None:
        return real
    return real.div_(weight.input_scale.view(-1, *[1] * (len(weight.shape) - 2)))


def nonzero(row: StoredTensor, data: memoryview) -> int:
    """How many elements are not zero: for integers those that are not at their zero point."""
    decoded = decode(row, data)
    if decoded.weight is None or decoded.weight.is_half:
        return int(torch.count_nonzero(decoded.tensor))
    integers, zeros = _integers(decoded.weight)
    return int(np.count_nonzero(integers != zeros))


def unusable(tensor: Tensor, *, parameter: bool) -> str | None:
    """Why a tensor cannot be part of a network: NaN, or infinity outside a buffer (a mask may hold it)."""
    if not tensor.is_floating_point():
        return None
    if bool(torch.isnan(tensor).any()):
        return "it holds NaN"
    if parameter and bool(torch.isinf(tensor).any()):
        return "it holds infinity"
    return None


def _encode_integers(
    name: str, tensor: Tensor, dtype: int, weight: QuantizedWeight
) -> tuple[StoredTensor, bytes]:
    _check_integers(tensor, weight)
    integers, zeros = _integers(weight)
    if not torch.equal(dequantize(weight).to(tensor.dtype), tensor.detach().cpu()):
        raise ValueError("its values are not those of its integers")
    mask = integers != zeros
    kept, bitmap, values = None, b"", integers
    left = int(mask.sum())
    if bitmap_bytes(mask.size) + packed_bytes(left, weight.bits) < packed_bytes(mask.size, weight.bits):
        kept, bitmap, values = left, pack_mask(mask), integers[mask]
    scale = weight.scale.reshape(-1).numpy().astype("<f4").tobytes()
    zero_point, how = weight.zero_point.reshape(-1).numpy().astype(np.uint8), "none"
    if weight.scheme == "affine":
        how = "stored" if zero_point.any() else "zero"
    row = StoredTensor.model_validate(
        {
            "name": name,
            "shape": tuple(weight.shape),
            "dtype": dtype,
            "kept": kept,
            "bits": weight.bits,
            "axis": weight.axis,
            "zero_point": how,
            "group": weight.group_size,
            "balanced": weight.input_scale is not None,
        }
    )
    packed = _packed(values, weight.bits, signed=weight.scheme == "symmetric").numpy().tobytes()
    zeros_part = zero_point.tobytes() if how == "stored" else b""
    balance = b"" if weight.input_scale is None else weight.input_scale.numpy().astype("<f4").tobytes()
    return row, scale + zeros_part + balance + bitmap + packed


def _check_halves(tensor: Tensor, weight: QuantizedWeight) -> None:
    if not tensor.is_floating_point() or tuple(weight.shape) != tuple(tensor.shape) or weight.bits != 16:
        raise ValueError(f"its halves are not those of {tensor.dtype} of shape {list(tensor.shape)}")
    real = weight.packed.view(_HALVES[weight.scheme]).view(weight.shape).to(tensor.dtype)
    if not torch.equal(real, tensor.detach().cpu()):
        raise ValueError("its values are not those of its halves")


def _check_integers(tensor: Tensor, weight: QuantizedWeight) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"it is quantized but its dtype is {tensor.dtype}")
    if tuple(weight.shape) != tuple(tensor.shape):
        raise ValueError(f"its integers have shape {list(weight.shape)}, not {list(tensor.shape)}")
    if not 2 <= weight.bits <= 8:
        raise ValueError(f"its integers have {weight.bits} bits")
    if weight.axis is not None and not 0 <= weight.axis < tensor.dim():
        raise ValueError(f"its axis is {weight.axis} in a tensor of {tensor.dim()} dimensions")
    if weight.group_size is not None and (weight.axis is None or weight.group_size < 1):
        raise ValueError(f"its groups of {weight.group_size} are not parts of a channel")
    scales = weight.scales
    if weight.scale.numel() != scales or weight.zero_point.numel() != scales:
        raise ValueError(f"it has {weight.scale.numel()} scales where {scales} are needed")
    if weight.scale.dtype != torch.float32:
        raise ValueError(f"its scale is {weight.scale.dtype}, not torch.float32")
    _check_scale(weight.scale.reshape(-1).numpy())
    if weight.input_scale is not None:
        if tensor.dim() < 2 or tuple(weight.input_scale.shape) != tuple(tensor.shape[1:2]):
            raise ValueError(f"its input_scale has shape {list(weight.input_scale.shape)}")
        if weight.input_scale.dtype != torch.float32:
            raise ValueError(f"its input_scale is {weight.input_scale.dtype}, not torch.float32")
        _check_scale(weight.input_scale.numpy())
    highest = 2**weight.bits - 1 if weight.scheme == "affine" else 0
    if bool(((weight.zero_point < 0) | (weight.zero_point > highest)).any()):
        raise ValueError(f"its zero_point is outside 0..{highest}")


def _check_scale(scale: NDArray[np.float32]) -> None:
    if not bool((np.isfinite(scale) & (scale > 0)).all()):
        raise ValueError("its scale is not finite and above 0")


def _integers(weight: QuantizedWeight) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The integers and the zero point of each, both flat."""
    signed = weight.scheme == "symmetric"
    flat = unpack(weight.packed, weight.bits, math.prod(weight.shape), signed=signed).numpy().astype(np.int32)
    lowest = -(2 ** (weight.bits - 1))
    if signed and flat.size and int(flat.min()) == lowest:
        raise ValueError(f"it holds the integer {lowest}, which is not symmetric")
    zeros = weight.zero_point.reshape(-1).numpy().astype(np.int32)
    return flat, along(zeros, weight.shape, weight.axis, weight.group_size)


def _decode_integers(row: StoredTensor, data: memoryview) -> QuantizedWeight:
    bits = row.value_bits
    scale_part, zero_part, balance, bitmap, values = _parts(row, data)
    scale = np.frombuffer(scale_part, dtype="<f4").astype(np.float32)
    _check_scale(scale)
    input_scale = np.frombuffer(balance, dtype="<f4").astype(np.float32)
    _check_scale(input_scale)
    zero_point = np.zeros(row.scales, dtype=np.int32)
    if row.zero_point == "stored":
        zero_point = np.frombuffer(zero_part, dtype=np.uint8).astype(np.int32)
        if zero_point.size and int(zero_point.max()) >= 2**bits:
            raise ValueError(f"its zero_point does not fit {bits} bits")
    scheme: Literal["symmetric", "affine"] = "symmetric" if row.zero_point == "none" else "affine"
    integers = _unpacked(row, values)
    if row.kept is not None:
        integers = _spread(row, bitmap, integers, along(zero_point, row.shape, row.axis, row.group).copy())
    return QuantizedWeight(
        packed=_packed(integers, bits, signed=scheme == "symmetric"),
        shape=row.shape,
        bits=bits,
        scheme=scheme,
        axis=row.axis,
        scale=torch.from_numpy(scale),
        zero_point=torch.from_numpy(zero_point),
        group_size=row.group,
        input_scale=torch.from_numpy(input_scale) if row.balanced else None,
    )


def _packed(integers: NDArray[np.int32], bits: int, *, signed: bool) -> Tensor:
    narrow = np.int8 if signed else np.uint8
    return pack(torch.from_numpy(integers.astype(narrow)), bits)


def _unpacked(row: StoredTensor, values: memoryview) -> NDArray[np.int32]:
    bits, count = row.value_bits, row.count if row.kept is None else row.kept
    packed = torch.from_numpy(np.frombuffer(values, dtype=np.uint8).copy())
    return unpack(packed, bits, count, signed=row.zero_point == "none").numpy().astype(np.int32)


def _spread(row: StoredTensor, bitmap: memoryview, values: NDArray[T], background: NDArray[T]) -> NDArray[T]:
    """``values`` laid into ``background`` where the bitmap has a bit."""
    mask = unpack_mask(bitmap, row.count)
    if int(mask.sum()) != values.size:
        raise ValueError(f"its bitmap has {int(mask.sum())} bits set, kept is {row.kept}")
    if bool((values == background[mask]).any()):
        raise ValueError("its bitmap has a bit where the value is zero")
    background[mask] = values
    return background


def _parts(
    row: StoredTensor, data: memoryview
) -> tuple[memoryview, memoryview, memoryview, memoryview, memoryview]:
    ends = list(itertools.accumulate(row.parts_bytes))
    if ends[-1] != len(data):
        raise ValueError(f"it measures {len(data)} bytes, not {ends[-1]}")
    a, b, c, d, e = (data[start:end] for start, end in zip([0, *ends], ends, strict=False))
    return a, b, c, d, e


def along(values: NDArray[T], shape: tuple[int, ...], axis: int | None, group_size: int | None) -> NDArray[T]:
    """One value for each element, flat, from one value in all, one per index of ``axis`` or one per group."""
    if group_size is not None and axis is not None:
        turned = [shape[axis], *(size for place, size in enumerate(shape) if place != axis)]
        width = math.prod(turned[1:])
        rows = np.repeat(values.reshape(shape[axis], -1), min(group_size, max(1, width)), axis=1)[:, :width]
        return np.moveaxis(rows.reshape(turned), 0, axis).reshape(-1)
    view = values.reshape(-1)
    if axis is not None:
        view = view.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return np.broadcast_to(view.reshape(()) if axis is None else view, shape).reshape(-1)


def _raw_type(dtype: torch.dtype) -> np.dtype[np.generic]:
    return np.dtype(f"<u{dtype.itemsize}")


def _numpy_type(dtype: torch.dtype) -> np.dtype[np.generic]:
    return np.dtype(str(_SAME_SIZE[dtype.itemsize]).removeprefix("torch."))


def _raw(tensor: Tensor) -> NDArray[np.unsignedinteger]:
    """The bit patterns of a tensor, flat and little-endian."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(_SAME_SIZE[tensor.dtype.itemsize])
    raw: NDArray[np.unsignedinteger] = flat.numpy().view(f"u{tensor.dtype.itemsize}")
    return raw.astype(_raw_type(tensor.dtype), copy=False)
