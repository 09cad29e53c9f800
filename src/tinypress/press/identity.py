"""What a run's results depend on: the network, its data, and what they are judged by."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from tinypress.files import sha256
from tinypress.task import Split, Task


def task_identity(task: Task) -> dict[str, object]:
    """Names and hashes by which another task in the place of this one is known: a folder keeps to what it began with.

    Functions are known by their source. What they read elsewhere is not seen.
    """
    return {
        "task": task.name,
        "model": _hash(
            piece for name, value in task.model.state_dict().items() for piece in (name.encode(), value)
        ),
        "train": None if task.train is None else _split_hash(task.train),
        "validation": _split_hash(task.validation),
        "test": _split_hash(task.test),
        "metric": [_known_by(task.metric), task.higher_is_better],
        "loss": _known_by(task.loss),
        "training": asdict(task.training),
    }


def _split_hash(split: Split) -> str:
    tensors: Iterable[Tensor] = (
        *split.inputs,
        split.targets,
        *(() if split.groups is None else (split.groups,)),
    )
    return _hash(piece for x in tensors for piece in (f"{x.dtype}{list(x.shape)}".encode(), x))


def _hash(pieces: Iterable[bytes | Tensor]) -> str:
    """Of all of them one behind another, tensors as their bytes; nothing large is copied."""
    digest = hashlib.sha256()
    for piece in pieces:
        if isinstance(piece, Tensor):
            digest.update(piece.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(piece)
    return digest.hexdigest()


def _known_by(what: object) -> str | None:
    """A name, or the text of what is called."""
    if what is None or isinstance(what, str):
        return what
    if isinstance(what, nn.Module):
        return repr(what)
    name = getattr(what, "__qualname__", type(what).__qualname__)
    try:
        source = inspect.getsource(what)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return name
    return f"{name} {sha256(source.encode())}"
