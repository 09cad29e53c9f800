"""Tensors with facts about them in one safetensors file that is whole, or known to be damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tinypress.files import canonical, write_bytes

_KEY = "tinypress"


def write_sealed(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``facts`` (plain JSON values), with a hash of both, whole or not at all.

    Raises:
        RunError: the folder cannot be written or the disk is full.
    """
    own = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    text = canonical({"facts": facts, "sha256": hash_of(facts, own)}).decode()
    write_bytes(path, safetensors.torch.save(own, metadata={_KEY: text}))


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What ``write_sealed`` wrote to ``path``; ``None`` where there is no such file or a byte of it is another."""
    try:
        data = path.read_bytes()
        tensors = {name: x.clone() for name, x in safetensors.torch.load(data).items()}
        length = int.from_bytes(data[:8], "little")
        sealed = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
        facts = sealed["facts"]
        whole = isinstance(facts, dict) and sealed["sha256"] == hash_of(facts, tensors)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return (tensors, facts) if whole else None


def hash_of(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the facts and of every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(canonical(facts))
    for name, x in sorted(tensors.items()):
        digest.update(canonical([name, str(x.dtype), list(x.shape)]))
        flat = x.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
