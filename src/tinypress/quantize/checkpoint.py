"""A checkpoint larger than memory to few bits: from safetensors to safetensors, a few rows at a time.

A weight ``w`` becomes ``w.packed`` (uint8, flat: the integers as ``QuantizedWeight`` says), ``w.scale`` (float32
[rows, groups]) and, where affine, ``w.zero_point`` (uint8 [rows, groups]). All else is copied byte by byte. The
file's one metadata key says which tensors these are, with their dtype and shape.

Axes: C rows (dimension 0), K weights of one row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tinypress.archive.shards import INDEX, Shards, find_shards
from tinypress.archive.tensors_file import ITEM_BYTES, Entry, Header, Planned, Sink, read_header, writing
from tinypress.bits import pack, packed_bytes
from tinypress.errors import ArtifactError, InputError, RunError
from tinypress.facts import Change, Note
from tinypress.files import write_json
from tinypress.quantize.affine import Scheme
from tinypress.quantize.hqq import half_quadratic
from tinypress.quantize.mse import least_squared_error
from tinypress.quantize.rows import Fit, Grid, check_settings, group_shape, quantize_rows, whole_range
from tinypress.quantize.shards import finished, remember, source_of

KEY = "tinypress_quantized"
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
Method = Literal["nearest", "mse", "hqq"]
_FITS: dict[str, Fit] = {"nearest": whole_range, "mse": least_squared_error, "hqq": half_quadratic}
_STEP = 1 << 21  # weights read at a time
_SHORTS = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}

Progress = Callable[[str, int, int], None]
"""Called with the name of the tensor that is done, the bytes read so far and those there are."""


@dataclass(frozen=True)
class QuantizedCheckpoint:
    """The files that were written, what changed, and which tensors kept their floats."""

    files: tuple[Path, ...]
    changes: tuple[Change, ...]
    notes: tuple[Note, ...]


def quantize_checkpoint(
    source: Path,
    target: Path,
    *,
    bits: int = 4,
    group_size: int | None = 32,
    scheme: Scheme = "symmetric",
    method: Method = "nearest",
    keep: Collection[str] = (),
    progress: Progress = lambda name, done, total: None,
) -> QuantizedCheckpoint:
    """Quantize every float tensor of two or more dimensions in a checkpoint, each row of dimension 0 on its own.

    Memory stays the same however large the checkpoint or a tensor in it is. Files appear whole or not at all. The
    shards of a run that was killed are not done again, as long as their sources are as they were.

    Args:
        source: a ``.safetensors`` file, or a folder with ``model.safetensors`` or ``model.safetensors.index.json``
            and its shards. Files of other kinds in the folder are not copied.
        target: the file, or the folder, to write.
        bits: 2 to 8.
        group_size: so many neighbouring weights of a row share a scale; ``None`` for all of them.
        keep: names or patterns (``*.embed_tokens.weight``) of tensors that are copied as they are.

    Raises:
        InputError: a setting out of range, a pattern that no tensor has, or a target that is the source.
        ArtifactError: a source that is missing, truncated or hostile; the text names the file and the tensor.
        ModelError: a weight is NaN, infinite or beyond 1e38.
        RunError: the target cannot be written or the disk is full.
    """
    call = f"quantize_checkpoint({source.name!r}, {target.name!r}, bits={bits!r}, method={method!r})"
    check_settings(call, bits, scheme, group_size)
    if method not in get_args(Method):
        raise InputError(call, f"method is {method!r}", f"Use one of {list(get_args(Method))}")
    if source.resolve() == target.resolve():
        raise InputError(call, "source and target are the same", "Choose another target")
    shards = find_shards(call, source, target)
    headers = {name: read_header(shards.source / name, call) for name in shards.names}
    shards.check(call, headers)
    grid = Grid(bits, scheme, group_size)
    chosen = {name: _choose(call, name, header, keep) for name, header in headers.items()}
    _check_keep(call, headers, keep)
    settings = {
        "bits": bits,
        "scheme": scheme,
        "group_size": group_size,
        "method": method,
        "keep": sorted(keep),
    }
    counter = _Counter(progress, sum(e.end - e.start for h in headers.values() for e in h.entries.values()))
    done = finished(shards, settings)
    for name in shards.names:
        if name in done:
            counter.skip(headers[name])
            continue
        before = source_of(shards, name)
        _shard(call, shards, name, headers[name], chosen[name], grid, _FITS[method], counter)
        if source_of(shards, name) != before:
            raise RunError(call, f"{name} changed while it was read", "Leave the source alone and call again")
        if shards.indexed:
            done[name] = before
            remember(shards, settings, done)
    if shards.indexed:
        _write_index(shards, headers, chosen, grid)
        remember(shards, settings, None)
    notes = [
        Note("TP210", "note", tensor, "it is among those to keep: it keeps its float weights")
        for name, header in headers.items()
        for tensor, entry in header.entries.items()
        if _is_weight(entry) and tensor not in chosen[name]
    ]
    changes = [
        Change(tensor, "bits", 8 * ITEM_BYTES[entry.dtype], bits)
        for entries in chosen.values()
        for tensor, entry in entries.items()
    ]
    return QuantizedCheckpoint(tuple(shards.targets()), tuple(changes), tuple(notes))


@dataclass
class _Counter:
    progress: Progress
    total: int
    done: int = 0

    def add(self, name: str, nbytes: int) -> None:
        self.done += nbytes
        self.progress(name, self.done, self.total)

    def skip(self, header: Header) -> None:
        for name, entry in header.entries.items():
            self.add(name, entry.end - entry.start)


def _is_weight(entry: Entry) -> bool:
    return entry.dtype in FLOATS and len(entry.shape) > 1 and entry.count > 0


def _choose(call: str, file: str, header: Header, keep: Collection[str]) -> dict[str, Entry]:
    if KEY in header.metadata:
        raise InputError(call, f"{file} is quantized already", "Give the float checkpoint")
    chosen = {
        name: entry
        for name, entry in header.entries.items()
        if _is_weight(entry) and not any(fnmatchcase(name, pattern) for pattern in keep)
    }
    for name in chosen:
        for part in ("packed", "scale", "zero_point"):
            if f"{name}.{part}" in header.entries:
                raise InputError(call, f"{file} has a tensor called {name}.{part}", f"Keep {name!r} as it is")
    return chosen


def _check_keep(call: str, headers: Mapping[str, Header], keep: Collection[str]) -> None:
    names = [name for header in headers.values() for name in header.entries]
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(call, f"keep: no tensor is called {pattern!r}", "Look for a typing mistake")


def parts_of(name: str, shape: tuple[int, ...], grid: Grid) -> dict[str, Planned]:
    """What a weight is stored as."""
    rows, width = shape[0], math.prod(shape[1:])
    _, groups = group_shape(width, grid.group_size)
    parts = {
        f"{name}.packed": Planned("U8", (packed_bytes(rows * width, grid.bits),)),
        f"{name}.scale": Planned("F32", (rows, groups)),
    }
    if grid.scheme == "affine":
        parts[f"{name}.zero_point"] = Planned("U8", (rows, groups))
    return parts


def _planned(header: Header, chosen: Mapping[str, Entry], grid: Grid) -> dict[str, Planned]:
    planned: dict[str, Planned] = {}
    for name, entry in header.entries.items():
        planned |= (
            parts_of(name, entry.shape, grid) if name in chosen else {name: Planned(entry.dtype, entry.shape)}
        )
    return planned


def _shard(
    call: str,
    shards: Shards,
    file: str,
    header: Header,
    chosen: Mapping[str, Entry],
    grid: Grid,
    fit: Fit,
    counter: _Counter,
) -> None:
    words = {
        "format": 1,
        "bits": grid.bits,
        "scheme": grid.scheme,
        "group_size": grid.group_size,
        "tensors": {name: [entry.dtype, list(entry.shape)] for name, entry in chosen.items()},
    }
    metadata = {KEY: json.dumps(words, separators=(",", ":"), ensure_ascii=False)}
    path = shards.source / file
    with writing(shards.target / shards.renamed(file), _planned(header, chosen, grid), metadata) as sink:
        for name, entry in header.entries.items():
            if name in chosen:
                _quantize(f"{call}, {name!r}", path, name, entry, grid, fit, sink)
            else:
                for offset, piece in _slices(call, path, entry, 1 << 24):
                    sink.write(name, offset, piece)
            counter.add(name, entry.end - entry.start)


def _quantize(call: str, path: Path, name: str, entry: Entry, grid: Grid, fit: Fit, sink: Sink) -> None:
    width = math.prod(entry.shape[1:])
    _, groups = group_shape(width, grid.group_size)
    item = ITEM_BYTES[entry.dtype]
    step = max(1, _STEP // width // 8) * 8  # eight rows fill whole bytes at any number of bits
    row = 0
    for _, piece in _slices(call, path, entry, step * width * item):
        w_CK = _tensor(piece, entry.dtype).view(-1, width)
        q_CK, scale, zero_point = quantize_rows(call, w_CK, grid, fit)
        sink.write(f"{name}.packed", row * width * grid.bits // 8, _bytes(pack(q_CK, grid.bits)))
        sink.write(f"{name}.scale", 4 * row * groups, _bytes(scale))
        if grid.scheme == "affine":
            sink.write(f"{name}.zero_point", row * groups, _bytes(zero_point.to(torch.uint8)))
        row += len(w_CK)


def _slices(call: str, path: Path, entry: Entry, step: int) -> Iterator[tuple[int, bytearray]]:
    """The bytes of a tensor, ``step`` at a time, with the offset of each piece."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(entry.start)
            for start in range(entry.start, entry.end, step):
                piece = bytearray(min(step, entry.end - start))
                view, got = memoryview(piece), 0
                while got < len(piece):
                    count = file.readinto(view[got:])
                    if not count:
                        raise ArtifactError(call, f"{path.name} became shorter", "Leave the source alone")
                    got += count
                yield start - entry.start, piece
    except OSError as error:
        raise ArtifactError(
            call, f"{path.name} cannot be read ({error.strerror})", "Check the disk"
        ) from error


def _tensor(piece: bytearray, dtype: str) -> Tensor:
    short = np.dtype(_SHORTS[ITEM_BYTES[dtype]]).newbyteorder("<")
    array = np.frombuffer(piece, dtype=short)
    return torch.from_numpy(array.astype(short.newbyteorder("="), copy=False)).view(FLOATS[dtype])


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _write_index(
    shards: Shards, headers: Mapping[str, Header], chosen: Mapping[str, Mapping[str, Entry]], grid: Grid
) -> None:
    planned = {name: _planned(header, chosen[name], grid) for name, header in headers.items()}
    total = sum(part.nbytes for parts in planned.values() for part in parts.values())
    weight_map = {part: name for name, parts in planned.items() for part in parts}
    write_json(
        shards.target / INDEX,
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )
