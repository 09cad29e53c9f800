"""Reads what ``quantize_checkpoint`` wrote, a tensor at a time. The files may be hostile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from tinypress.archive.shards import find_shards
from tinypress.archive.tensors_file import ITEM_BYTES, Entry, Header, read_header
from tinypress.errors import ArtifactError, InputError
from tinypress.facts import QuantizedWeight
from tinypress.quantize.checkpoint import FLOATS, KEY, parts_of
from tinypress.quantize.layer import dequantize_layer_weights
from tinypress.quantize.rows import Grid

_DTYPES = {
    **FLOATS,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_DAMAGED = "Write the file again with quantize_checkpoint"
_Size = Annotated[int, Field(ge=0, lt=2**40, strict=True)]


class _Words(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    bits: Annotated[int, Field(ge=2, le=8, strict=True)]
    scheme: Literal["symmetric", "affine"]
    group_size: Annotated[int, Field(ge=1, lt=2**31, strict=True)] | None
    tensors: dict[str, tuple[Literal["F32", "F16", "BF16", "F64"], list[_Size]]]


def read_quantized_checkpoint(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by its own name: quantized ones as the numbers their integers stand for, in their dtype.

    ``model.load_state_dict(dict(read_quantized_checkpoint(path)))`` takes them.

    Raises:
        ArtifactError: the file is missing, truncated or hostile; the text names the tensor.
    """
    for name, value, dtype in _stored(path):
        yield name, dequantize_layer_weights(value).to(dtype) if isinstance(value, QuantizedWeight) else value


def read_quantized_weights(path: Path) -> Iterator[tuple[str, QuantizedWeight]]:
    """The quantized tensors alone, as their integers.

    Raises:
        ArtifactError: as ``read_quantized_checkpoint``.
    """
    for name, value, _ in _stored(path):
        if isinstance(value, QuantizedWeight):
            yield name, value


def _stored(path: Path) -> Iterator[tuple[str, Tensor | QuantizedWeight, torch.dtype]]:
    call = f"read_quantized_checkpoint({path.name!r})"
    shards = find_shards(call, path, path)
    headers = {name: read_header(shards.source / name, call) for name in shards.names}
    shards.check(call, headers)
    for file, header in headers.items():
        words = _words(call, file, header)
        grid = Grid(words.bits, words.scheme, words.group_size)
        parts = {name: _parts(call, name, shape, grid, header) for name, (_, shape) in words.tensors.items()}
        owned = {part for entries in parts.values() for part in entries}
        with (shards.source / file).open("rb") as source:
            for name, entry in header.entries.items():
                if name not in owned:
                    if entry.dtype not in _DTYPES:
                        raise ArtifactError(
                            call, f"{name!r} has dtype {entry.dtype}", "Read it with safetensors"
                        )
                    yield name, _read(source, entry), _DTYPES[entry.dtype]
            for name, (dtype, shape) in words.tensors.items():
                tensors = [_read(source, entry) for entry in parts[name].values()]
                try:
                    yield name, _weight(tensors, tuple(shape), grid), FLOATS[dtype]
                except (InputError, ValueError) as error:
                    problem = error.problem if isinstance(error, InputError) else str(error)
                    raise ArtifactError(call, f"{name[:80]!r}: {problem}", _DAMAGED) from error


def _words(call: str, file: str, header: Header) -> _Words:
    try:
        return _Words.model_validate_json(header.metadata.get(KEY, ""))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step)[:80] for step in problem["loc"])
        raise ArtifactError(call, f"{file}: {KEY}: {place}: {problem['msg']}", _DAMAGED) from error


def _parts(call: str, name: str, shape: list[int], grid: Grid, header: Header) -> dict[str, Entry]:
    if len(shape) < 2 or 0 in shape:
        raise ArtifactError(call, f"{name[:80]!r} has the shape {str(shape)[:80]}", _DAMAGED)
    found = {}
    for part, planned in parts_of(name, tuple(shape), grid).items():
        entry = header.entries.get(part)
        if entry is None or (entry.dtype, entry.shape) != (planned.dtype, planned.shape):
            raise ArtifactError(
                call, f"{part[:80]!r} is not {planned.dtype} of shape {list(planned.shape)}", _DAMAGED
            )
        found[part] = entry
    return found


def _weight(tensors: list[Tensor], shape: tuple[int, ...], grid: Grid) -> QuantizedWeight:
    packed, scale = tensors[0], tensors[1].reshape(-1)
    zero = (
        tensors[2].reshape(-1).int()
        if grid.scheme == "affine"
        else torch.zeros_like(scale, dtype=torch.int32)
    )
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError("its scale is not finite and above 0")
    if int(zero.max()) >= 1 << grid.bits:
        raise ValueError(f"its zero_point does not fit {grid.bits} bits")
    return QuantizedWeight(packed, shape, grid.bits, grid.scheme, 0, scale, zero, grid.group_size)


def _read(source: BinaryIO, entry: Entry) -> Tensor:
    dtype = _DTYPES[entry.dtype]
    source.seek(entry.start)
    data = bytearray(source.read(entry.end - entry.start))
    if not data:
        return torch.empty(entry.shape, dtype=dtype)
    array = np.frombuffer(data, dtype=f"<u{ITEM_BYTES[entry.dtype]}")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    signed = native.view(f"i{array.itemsize}") if array.itemsize > 1 else native
    return torch.from_numpy(signed).view(dtype).reshape(entry.shape)
