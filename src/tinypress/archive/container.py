"""The file around a plan: safetensors with one uint8 tensor ``data`` and one metadata key ``tinypress``.

One key, because safetensors writes several in an order that changes from run to run. Reading looks at sizes
before it reads, so that what a file claims never makes this program allocate more than the file holds.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from pydantic import ValidationError

from tinypress.archive.plan import FORMAT, Plan, StoredTensor
from tinypress.archive.tensors_file import unique_keys
from tinypress.errors import ArtifactError

DAMAGED = "Copy the file again, or write it again with the command that made it"
LONGEST_HEADER_BYTES = 1 << 22


def to_bytes(plan: Plan, data: bytes) -> bytes:
    """The whole file; equal arguments give equal bytes."""
    text = json.dumps(
        plan.model_dump(mode="json", exclude_defaults=True) | {"format": plan.format},
        separators=(",", ":"),
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
    )
    tensors = {"data": np.frombuffer(data, dtype=np.uint8)}
    file: bytes = safetensors.numpy.save(tensors, metadata={"tinypress": text})
    return file


def load(path: Path, call: str, *, limit_elements: int | None = None) -> tuple[Plan, memoryview]:
    """The plan of an archive and its data, which measures what the plan says.

    Args:
        call: what the caller was asked to do, for the error.
        limit_elements: the most elements that all tensors together may have.

    Raises:
        ArtifactError: the file cannot be read, is truncated, is not an archive, or its plan is not sound.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ArtifactError(call, "the path is not a file", "Name the archive itself")
        with path.open("rb") as file:
            return _load(file, os.fstat(file.fileno()).st_size, call, limit_elements)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(
            call, f"the file cannot be read ({reason})", "Check its path and rights"
        ) from error


def pieces(plan: Plan, data: memoryview) -> Iterator[tuple[str, StoredTensor, memoryview]]:
    """Full name, row and bytes of every tensor."""
    start = 0
    for name, row in plan.tensors():
        end = start + sum(row.parts_bytes)
        yield name, row, data[start:end]
        start = end


def _load(file: BinaryIO, size: int, call: str, limit_elements: int | None) -> tuple[Plan, memoryview]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ArtifactError(call, f"the header is cut off: the file has {size} bytes", DAMAGED)
    if length > LONGEST_HEADER_BYTES:
        raise ArtifactError(call, f"the header has {length} bytes, over {LONGEST_HEADER_BYTES}", DAMAGED)
    data_bytes = size - 8 - length
    plan = _plan(_plan_text(file.read(length), data_bytes, call), call)
    if plan.data_bytes != data_bytes:
        raise ArtifactError(call, f"data has {data_bytes} bytes, the plan needs {plan.data_bytes}", DAMAGED)
    elements = sum(row.count for _, row in plan.tensors())
    if limit_elements is not None and elements > limit_elements:
        raise ArtifactError(
            call,
            f"layers.tensors.shape: {elements} elements, more than {limit_elements} for this stock network",
            "Give the stock network that the archived one was made from",
        )
    data = file.read(data_bytes)
    if zlib.crc32(data) != plan.crc32:
        raise ArtifactError(call, "crc32: the data is not what was written", DAMAGED)
    return plan, memoryview(data)


def _plan_text(header: bytes, data_bytes: int, call: str) -> str:
    """What the metadata key holds, after everything else in the header was found to be as it must."""
    known = _json(header, "the header", call)
    if not isinstance(known, dict) or set(known) != {"__metadata__", "data"}:
        raise ArtifactError(
            call,
            "the header does not name __metadata__ and data alone",
            "Give a file that write_archive made",
        )
    metadata = known["__metadata__"]
    if (
        not isinstance(metadata, dict)
        or set(metadata) != {"tinypress"}
        or not isinstance(metadata["tinypress"], str)
    ):
        raise ArtifactError(
            call, "__metadata__ does not hold tinypress alone", "Give a file that write_archive made"
        )
    expected = {"dtype": "U8", "shape": [data_bytes], "data_offsets": [0, data_bytes]}
    given = known["data"]
    if not isinstance(given, dict) or set(given) != set(expected):
        raise ArtifactError(call, "data does not have dtype, shape and data_offsets", DAMAGED)
    for field, value in expected.items():
        if given[field] != value:
            said = str(given[field])[:80]
            raise ArtifactError(call, f"data.{field} is {said}, the file has {value}", DAMAGED)
    text: str = metadata["tinypress"]
    return text


def _plan(text: str, call: str) -> Plan:
    raw = _json(text, "the plan", call)
    if not isinstance(raw, dict) or "format" not in raw:
        raise ArtifactError(call, "the plan has no field format", "Give a file that write_archive made")
    if raw["format"] != FORMAT:
        raise ArtifactError(
            call,
            f"format is {str(raw['format'])[:40]}, this version reads {FORMAT}",
            "Open it with the version of tinypress that wrote it",
        )
    try:
        return Plan.model_validate(raw)
    except ValidationError as error:
        raise ArtifactError(call, f"the plan is not sound: {first_problem(error)}", DAMAGED) from error


def first_problem(error: ValidationError) -> str:
    """The first field that does not fit, and why."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(step)[:80] for step in problem["loc"])
    return f"{field}: {problem['msg']}" if field else problem["msg"]


def _json(text: bytes | str, what: str, call: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ArtifactError(call, f"{what} is nested too deep", DAMAGED) from error
    except ValueError as error:
        raise ArtifactError(call, f"{what} is not valid JSON ({error})", DAMAGED) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
