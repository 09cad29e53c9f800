"""Opens what shipped as an archive of a Hugging Face network, without the weights of the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from tinypress.archive import read_archive
from tinypress.errors import ArtifactError
from tinypress.huggingface.folder import read_config
from tinypress.huggingface.library import kind_of, library, outline, quietly

ARCHIVE = "archive.safetensors"
_MOST_WEIGHTS_PER_BYTE = 1000  # zeros take a bit each, and some layers may be gone


def read_shipped(
    folder: Path, original: Path, wrap: Callable[[nn.Module], nn.Module] = lambda network: network
) -> nn.Module:
    """The network in ``folder``, an artifact's own with archive.safetensors, in evaluation mode.

    ``save_pretrained()`` of the Hugging Face network in it writes a folder that ``from_pretrained()`` opens without
    tinypress, where no finding (TP306) says that its config cannot.

    Args:
        original: the folder that was pressed; its config.json alone is read, its weights may be gone.
        wrap: what the task put around the Hugging Face network, such as a class of the user's.

    Raises:
        MissingExtra: transformers is not installed.
        ArtifactError: a file is missing, truncated or hostile, or the archive is that of another network.
        ModelError: transformers has no such architecture.
    """
    folder, original = Path(folder), Path(original)
    call = f"read_shipped({folder.name!r}, {original.name!r})"
    given = read_config(call, original)
    path = folder / ARCHIVE
    if not path.is_file():
        raise ArtifactError(call, f"it holds no {ARCHIVE}", 'Ship it with ship = ["archive"]')
    transformers = library(call)
    with quietly(transformers):
        kind, config = kind_of(call, transformers, original, given)
        weights = sum(tensor.numel() for tensor in outline(call, kind, config).state_dict().values())
        if weights > _MOST_WEIGHTS_PER_BYTE * path.stat().st_size:
            problem = f"config.json describes {weights:,} weights, far more than {ARCHIVE} can hold"
            raise ArtifactError(call, problem, "Give the folder that was pressed")
        stock = wrap(kind(config).eval())
    return read_archive(path, stock).model
