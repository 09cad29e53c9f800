"""Plain data with tensors as bytes: JSON for the shape of it, safetensors for the tensors. Nothing is unpickled."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

import torch
from safetensors.torch import load, save
from torch import Tensor

_TENSOR = "~tensor"
_HEAD = struct.Struct("<QQ")


class WireError(Exception):
    """The other end closed the pipe or sent something that is no message."""


def send(pipe: IO[bytes], value: Any) -> None:
    """Write ``value`` (None, numbers, strings, tensors, and lists, tuples and dicts of them) as one message."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_strip(value, tensors)).encode()
    blob = save(tensors) if tensors else b""
    pipe.write(_HEAD.pack(len(text), len(blob)) + text + blob)
    pipe.flush()


def receive(pipe: IO[bytes], most_bytes: int = 1 << 28) -> Any:
    """Read one message.

    Raises:
        WireError: the pipe was closed, or the message is too long or malformed.
    """
    text_bytes, blob_bytes = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    if text_bytes + blob_bytes > most_bytes:
        raise WireError(f"a message of {text_bytes + blob_bytes} bytes; at most {most_bytes} are read")
    text, blob = _exactly(pipe, text_bytes), _exactly(pipe, blob_bytes)
    try:
        return _fill(json.loads(text), load(blob) if blob else {})
    except Exception as error:
        raise WireError(f"not a message ({type(error).__name__}: {error})") from error


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    parts = []
    while count:
        part = pipe.read(min(count, 1 << 20))
        if not part:
            raise WireError("the pipe was closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _strip(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu").contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {str(key): _strip(each, tensors) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(each, tensors) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"{type(value).__name__}: {value}"[:200]


def _fill(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _fill(each, tensors) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, tensors) for each in value]
    return value


def as_plain(value: Any) -> Any:
    """``value`` as the other end of a pipe would get it: tuples as lists, tensors detached."""
    tensors: dict[str, Tensor] = {}
    stripped = json.loads(json.dumps(_strip(value, tensors)))
    return _fill(stripped, {name: torch.clone(tensor) for name, tensor in tensors.items()})
