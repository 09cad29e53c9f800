"""What ships beside a pressed Hugging Face network: the config that says its widths, and the tokenizer as it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tinypress.errors import ModelError
from tinypress.facts import Note
from tinypress.huggingface.folder import CONFIG
from tinypress.task import Companions


def companions(
    model: nn.Module, kind: type[nn.Module], tokenizer: Mapping[str, bytes], notes: tuple[Note, ...]
) -> Companions:
    """config.json of the network of class ``kind`` in ``model``, and the files of its tokenizer.

    A note (TP306) where that config does not describe the network as it is, so that from_pretrained() cannot.

    Raises:
        ModelError: there is no such network in ``model``.
    """
    found = next(((path, m) for path, m in model.named_modules() if isinstance(m, kind)), None)
    if found is None:
        raise ModelError(
            f"companions({type(model).__name__})",
            f"it holds no {kind.__name__}, the network of the folder",
            "Keep that network, or a module that holds it, as the task's model",
        )
    path, network = found
    if not _describes(network):
        text = (
            f"{path or type(network).__name__}: the config.json that ships does not describe this network, so that "
            "from_pretrained() cannot open it; open it with read_archive on the original network"
        )
        notes = (*notes, Note("TP306", "note", path or None, text))
    return Companions({CONFIG: _written(network), **tokenizer}, notes)


def _written(network: Any) -> bytes:
    """The config as save_pretrained() writes it, but for what is of this machine or this version."""
    config = copy.deepcopy(network.config)
    config.architectures = [type(network).__name__]
    values = config.to_diff_dict()
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _describes(network: Any) -> bool:
    """Whether what the network's class makes of its config has the shapes of the network."""
    try:
        with torch.device("meta"):
            built = type(network)(copy.deepcopy(network.config))
    except Exception:  # whatever the constructor says to numbers that do not go together
        return False
    return _shapes(built) == _shapes(network)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
