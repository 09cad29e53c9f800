"""Reads the network and the tokenizer of a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinypress.errors import ArtifactError
from tinypress.facts import Note
from tinypress.huggingface.beside import companions
from tinypress.huggingface.folder import Folder, look_into
from tinypress.huggingface.library import SAFELY, kind_of, library, outline, quietly
from tinypress.task import Companions

# tied weights are stored once and counted twice; what is not stored, such as positions, is small
_GROWTH, _FREE = 4, 1_000_000
_COPY = "Copy the folder again"


@dataclass(frozen=True)
class Pretrained:
    """The network of a folder, in evaluation mode and float32, and its tokenizer; None where the folder has a
    preprocessor of pictures or sound instead."""

    model: nn.Module
    tokenizer: Any
    folder: Folder
    notes: tuple[Note, ...] = ()

    def companions(self, model: nn.Module) -> Companions:
        """What ships beside ``model``, the pressed network or a module that holds it: config and tokenizer."""
        return companions(model, type(self.model), self.folder.beside, self.notes)


def read_pretrained(path: Path) -> Pretrained:
    """Read the network and the tokenizer in the folder ``path``: config.json, model.safetensors (or its shards with
    their index) and the tokenizer's files.

    The class is the one that the config names, where transformers has it, else that of ``AutoModel``. Attention is
    the plain one ("eager"), which torch's exporter takes.

    Raises:
        MissingExtra: transformers is not installed.
        ArtifactError: something is missing, truncated or hostile, weights and config do not fit together, or the
            folder needs a pickle or code of its own.
        ModelError: transformers has no such architecture.
    """
    path = Path(path)
    call = f"read_pretrained({path.name!r})"
    folder = look_into(call, path)
    transformers = library(call)
    with quietly(transformers):
        kind, config = kind_of(call, transformers, path, folder.config)
        _check_size(call, outline(call, kind, config), folder)
        model, notes = _weights(call, kind, config, folder)
        tokenizer = _tokenizer(call, transformers, folder) if folder.has_tokenizer else None
    return Pretrained(model, tokenizer, folder, notes)


def _check_size(call: str, built: nn.Module, folder: Folder) -> None:
    """No memory is taken for what the file does not hold."""
    stored = sum(torch.Size(shape).numel() for shape in folder.shapes.values())
    asked = sum(tensor.numel() for tensor in built.state_dict().values())
    if asked > _GROWTH * stored + _FREE:
        problem = f"config.json describes a network of {asked:,} weights, the folder holds {stored:,}"
        raise ArtifactError(call, problem, _COPY)


def _weights(call: str, kind: Any, config: Any, folder: Folder) -> tuple[nn.Module, tuple[Note, ...]]:
    try:
        model, said = kind.from_pretrained(
            folder.path,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            **SAFELY,
        )
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArtifactError(call, f"{kind.__name__} cannot be filled: {first}", _COPY) from error
    wrong = sorted(each[0] if isinstance(each, tuple) else each for each in said["mismatched_keys"])
    if wrong:
        problem = f"{wrong[0]!r} has another shape in the weights than by config.json"
        raise ArtifactError(call, problem, _COPY)
    missing = sorted(said["missing_keys"])
    if missing:
        problem = (
            f"{len(missing)} tensors of {kind.__name__} are not among its weights, such as {missing[0]!r}"
        )
        remedy = "They would be random: train and save the whole network, or name its class in architectures"
        raise ArtifactError(call, problem, remedy)
    return model.eval(), _unused(sorted(said["unexpected_keys"]), kind)


def _unused(names: list[str], kind: Any) -> tuple[Note, ...]:
    if not names:
        return ()
    text = f"{len(names)} tensors of the folder are no part of {kind.__name__} and do not ship, such as {names[0]}"
    return (Note("TP309", "note", None, text),)


def _tokenizer(call: str, transformers: Any, folder: Folder) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(folder.path, **SAFELY)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArtifactError(
            call, f"its tokenizer cannot be read: {first}", "Copy the tokenizer's files again"
        ) from error
