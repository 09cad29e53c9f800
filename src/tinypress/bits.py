"""Integers of 2 to 8 bits, end to end in a flat row of bytes.

Integer number i takes the bits [i * bits, (i + 1) * bits) of the row, the least significant bit of each
byte first; negative integers are kept in two's complement. Eight integers fill ``bits`` whole bytes, so
they are moved as one 64-bit word: neighbours are joined in pairs, then in fours, then in eights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinypress.errors import InputError

_PAIRS = ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF))
_WHOLE_BYTES = {4: torch.int16, 2: torch.int32}  # lanes whose integers fill one byte
_EVERY_BYTE = 0x0101010101010101
_BLOCK = 1 << 20  # integers a step; a multiple of 8 that stays in the cache


def pack(values: Tensor, bits: int) -> Tensor:
    """Pack int8 (signed) or uint8 (unsigned) ``values`` of any shape, row by row.

    Returns:
        uint8 [ceil(numel * bits / 8)]; bits left over in the last byte are zero. At 8 bits this is the
        memory of ``values`` itself, where that is contiguous.

    Raises:
        InputError: ``bits`` is not one of 2..8, the dtype is another, or a value needs more bits.
    """
    call = f"pack(values={values.dtype}{list(values.shape)}, bits={bits!r})"
    _check_bits(call, bits)
    if values.dtype not in (torch.int8, torch.uint8):
        raise InputError(call, "values are neither int8 nor uint8", "Convert them first")
    flat = values.detach().reshape(-1)
    if bits == 8:
        return flat.view(torch.uint8)
    _check_range(call, flat, bits)
    packed = torch.empty(packed_bytes(flat.numel(), bits), dtype=torch.uint8)
    for start in range(0, flat.numel(), _BLOCK):
        piece = _padded(flat[start : start + _BLOCK].view(torch.uint8), 8)
        words = piece.view(torch.int64) & (_EVERY_BYTE * ((1 << bits) - 1))
        width = bits
        for lane, mask in _PAIRS:
            if width == 8:
                break
            if bits <= 4:  # the lower of two neighbours leaves nothing behind when both are shifted
                words = (words >> (lane - width)).bitwise_or_(words).bitwise_and_(mask)
            else:
                words = (words & mask) | (((words >> lane) & mask) << width)
            width *= 2
        row = packed[start * bits // 8 :]
        if bits in _WHOLE_BYTES:  # narrowing every lane to its low byte is ten times as fast as picking bytes
            filled = words.view(_WHOLE_BYTES[bits])
        else:
            filled = words.view(torch.uint8).view(-1, 8)[:, :bits].reshape(-1)
        row[: filled.numel()].copy_(filled[: row.numel()])
    return packed


def unpack(packed: Tensor, bits: int, count: int, *, signed: bool) -> Tensor:
    """Read ``count`` integers back from a flat row of bytes.

    Returns:
        int8 [count] where ``signed``, else uint8 [count]. At 8 bits this is the memory of ``packed``.

    Raises:
        InputError: ``bits`` is not one of 2..8, the row is not exactly as long as ``count`` integers
            need, or one of the bits left over in its last byte is set.
    """
    call = f"unpack(packed={packed.dtype}{list(packed.shape)}, bits={bits!r}, count={count!r})"
    _check_bits(call, bits)
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise InputError(call, "packed is not a flat uint8 tensor", "Give what pack() returned")
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise InputError(call, "count is not a number of integers", "Give 0 or more")
    needed = packed_bytes(count, bits)
    if packed.numel() != needed:
        raise InputError(
            call,
            f"{count} integers of {bits} bits are {needed} bytes, and there are {packed.numel()}",
            "The data is truncated or has another shape or another number of bits",
        )
    used = count * bits % 8
    if used and int(packed[-1]) >> used:
        raise InputError(
            call,
            f"bits after the last integer are set (the last byte is {int(packed[-1])})",
            "The data is damaged or has another number of bits",
        )
    target = torch.int8 if signed else torch.uint8
    if bits == 8:
        return packed.view(target)
    values = torch.empty(count, dtype=torch.uint8)
    for start in range(0, count, _BLOCK):
        piece = _padded(packed[start * bits // 8 : (start + _BLOCK) * bits // 8], bits).view(-1, bits)
        spread = torch.zeros(len(piece), 8, dtype=torch.uint8)
        spread[:, :bits] = piece
        words = spread.view(torch.int64).view(-1)
        for lane, _ in reversed(_PAIRS):
            width = bits * lane // 8
            mask = ((1 << width) - 1) * _ones_every(2 * lane)
            words = (words & mask) | (((words >> width) & mask) << lane)
        row = values[start : start + _BLOCK]
        row.copy_(words.view(torch.uint8)[: row.numel()])
    if not signed:
        return values
    sign = 1 << (bits - 1)
    return values.bitwise_xor_(sign).view(torch.int8).sub_(sign)


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes ``count`` integers of ``bits`` bits take."""
    return -(-count * bits // 8)


def _ones_every(step: int) -> int:
    return sum(1 << position for position in range(0, 64, step))


def _padded(piece: Tensor, multiple: int) -> Tensor:
    """``piece`` as a whole number of groups that can be viewed as 64-bit words."""
    missing = -piece.numel() % multiple
    if not missing and piece.storage_offset() % 8 == 0:
        return piece
    return torch.cat([piece, piece.new_zeros(missing)])


def _check_bits(call: str, bits: int) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise InputError(call, f"bits is {bits!r}", "Give a whole number from 2 to 8")


def _check_range(call: str, flat: Tensor, bits: int) -> None:
    if not flat.numel():
        return
    signed = flat.dtype == torch.int8
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    least, most = int(flat.amin()), int(flat.amax())
    if least < low or most > high:
        raise InputError(
            call,
            f"values reach from {least} to {most}, and {bits} bits hold {low} to {high}",
            "Use more bits or clamp the values",
        )
