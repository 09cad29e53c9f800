"""Safetensors files larger than memory: read a slice at a time, written a slice at a time.

A file is the length of its header (8 bytes, little-endian), the header (JSON: dtype, shape and offsets of each
tensor) and the data. The header is known before any data from the shapes alone. What a file claims is checked
against its size before anything is read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tinypress.errors import ArtifactError, RunError

ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
LONGEST_HEADER_BYTES = 100_000_000  # the limit of the format's own library
_REMEDY = "Free some space or choose another target; the same call then goes on"
_DAMAGED = "Copy the file again"


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies, in bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The tensors of a file in the order of their data, and its own words."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]


def read_header(path: Path, call: str) -> Header:
    """The header of the file at ``path``, checked against its size.

    Raises:
        ArtifactError: the file cannot be read, is truncated, or its header is not sound; the text names the tensor.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ArtifactError(
                    call, f"{path.name}: the header is cut off, the file has {size} bytes", _DAMAGED
                )
            if length > LONGEST_HEADER_BYTES:
                raise ArtifactError(call, f"{path.name}: the header has {length} bytes", _DAMAGED)
            text = file.read(length)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(
            call, f"{path.name} cannot be read ({reason})", "Check its path and rights"
        ) from error
    known = read_json(text, f"the header of {path.name}", call)
    metadata = known.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(word, str) for word in metadata.values()):
        raise ArtifactError(call, f"{path.name}: __metadata__ does not hold words", _DAMAGED)
    entries = {name: _entry(call, path.name, name, raw, 8 + length) for name, raw in known.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    end = 8 + length
    for name, entry in entries.items():
        if entry.start != end:
            raise ArtifactError(
                call, f"{path.name}: {name[:80]!r} overlaps another tensor or leaves a gap", _DAMAGED
            )
        end = entry.end
    if end != size:
        raise ArtifactError(call, f"{path.name} has {size} bytes, its header tells of {end}", _DAMAGED)
    return Header(entries, metadata)


def read_json(text: bytes | str, what: str, call: str) -> dict[str, Any]:
    """A JSON object whose keys come once.

    Raises:
        ArtifactError: it is no such thing.
    """
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(call, f"{what} is not valid JSON ({str(error)[:80]})", _DAMAGED) from error
    if not isinstance(value, dict):
        raise ArtifactError(call, f"{what} is not a JSON object", _DAMAGED)
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of these pairs.

    Raises:
        ValueError: a key comes twice.
    """
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key comes twice")
    return keys


def _entry(call: str, file: str, name: str, raw: object, base: int) -> Entry:
    def refuse(problem: str) -> ArtifactError:
        return ArtifactError(call, f"{file}: {name[:80]!r}: {problem}", _DAMAGED)

    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise refuse("it does not have dtype, shape and data_offsets alone")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise refuse(f"dtype {str(dtype)[:20]!r} is unknown")
    if not _sizes(shape) or len(shape) > 32:
        raise refuse("shape is not a list of sizes")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse("data_offsets is not a beginning and an end")
    entry = Entry(dtype, tuple(shape), base + offsets[0], base + offsets[1])
    if entry.count * ITEM_BYTES[dtype] != offsets[1] - offsets[0]:
        raise refuse(f"{offsets[1] - offsets[0]} bytes do not hold {dtype} of shape {str(shape)[:80]}")
    return entry


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 for size in value
    )


@dataclass(frozen=True)
class Planned:
    """One tensor that will be written."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Sink:
    """A file that is being written; every tensor may be written in any order, in any pieces."""

    file: BinaryIO
    starts: Mapping[str, int]

    def write(self, name: str, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at ``offset`` bytes into the tensor."""
        self.file.seek(self.starts[name] + offset)
        self.file.write(data)


@contextlib.contextmanager
def writing(path: Path, planned: Mapping[str, Planned], metadata: Mapping[str, str]) -> Iterator[Sink]:
    """Write a safetensors file piece by piece, whole or not at all.

    The room for all of it is taken before the first byte, so that a full disk is known at once. A run that was
    killed leaves a ``.part`` file beside the target, which the next one writes over.

    Raises:
        RunError: the folder cannot be written, the disk is full, or another run writes the same file.
    """
    ordered = sorted(planned.items(), key=lambda item: (-ITEM_BYTES[item[1].dtype], item[0]))  # all aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place, starts = 0, {}
    for name, tensor in ordered:
        offsets = [place, place + tensor.nbytes]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        starts[name], place = place, offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    call = f"writing {path.name} ({base + place} bytes)"
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                file.truncate(0)
                _reserve(file, base + place)
                file.write(len(text).to_bytes(8, "little") + text)
                yield Sink(file, {name: base + start for name, start in starts.items()})
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except BlockingIOError as error:
        raise RunError(
            call, "another run is writing this file", "Wait for it, or choose another target"
        ) from error
    except OSError as error:
        raise RunError(call, f"the file could not be written ({error.strerror})", _REMEDY) from error


def _reserve(file: BinaryIO, size: int) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some network file systems cannot
            raise
        file.truncate(size)
