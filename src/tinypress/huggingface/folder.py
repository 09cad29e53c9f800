"""What lies in a Hugging Face folder, checked before anything of it is used. The folder may be hostile.

Nothing in it is unpickled and no code of it is run: a folder that needs either is refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinypress.archive.shards import INDEX, ONE, find_shards
from tinypress.archive.tensors_file import read_header, read_json
from tinypress.errors import ArtifactError

CONFIG = "config.json"
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_PREPARES = "preprocessor_config.json"  # of pictures and sound, which have no tokenizer
# what a tokenizer or preprocessor is made of, all copied as they are
BESIDE = (
    *_VOCABULARIES,
    _PREPARES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)
_PICKLES = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_MOST_CONFIG_BYTES = 10_000_000
_MOST_BESIDE_BYTES = 200_000_000
_COPY = "Copy the folder again"


@dataclass(frozen=True)
class Folder:
    """A folder that can be read: its config as it was written, the shapes of its tensors, and the bytes of the files
    of its tokenizer by name."""

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    beside: Mapping[str, bytes]

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a vocabulary."""
        return any(name in self.beside for name in _VOCABULARIES)


def look_into(call: str, path: Path) -> Folder:
    """What the folder at ``path`` holds.

    Raises:
        ArtifactError: config.json, the weights or the tokenizer are missing, truncated or not sound, or the folder
            needs a pickle or code of its own.
    """
    config = read_config(call, path)
    if not (path / INDEX).is_file() and not (path / ONE).is_file():
        pickles = sorted(found.name for pattern in _PICKLES for found in path.glob(pattern))
        if pickles:
            raise ArtifactError(
                call,
                f"its weights lie in {pickles[0]} alone, whose opening can run code",
                "Where you trust it, open it with transformers and save_pretrained() it as safetensors",
            )
        raise ArtifactError(call, f"it holds no {ONE} and no {INDEX}", "Give the folder of save_pretrained()")
    shards = find_shards(call, path, path)
    headers = {name: read_header(path / name, call) for name in shards.names}
    shards.check(call, headers)
    shapes = {name: entry.shape for header in headers.values() for name, entry in header.entries.items()}
    if not shapes:
        raise ArtifactError(call, "its weights hold no tensor", _COPY)
    _check_depth(call, config, len(shapes))
    beside = {name: _bytes(call, path / name) for name in BESIDE if (path / name).is_file()}
    folder = Folder(path, config, shapes, beside)
    if not folder.has_tokenizer and _PREPARES not in beside:
        raise ArtifactError(
            call,
            "it holds no tokenizer",
            f"Copy the tokenizer's files into it ({_VOCABULARIES[0]}, tokenizer_config.json), which ship with it",
        )
    for name in beside:
        if name.endswith(".json") and name != "vocab.json":
            _refuse_code(call, name, read_json(beside[name], name, call))
    return folder


def read_config(call: str, path: Path) -> Mapping[str, Any]:
    """The config.json of the folder at ``path``.

    Raises:
        ArtifactError: there is none, it is not sound, or it names code that would have to be run.
    """
    if not path.is_dir():
        raise ArtifactError(call, "there is no such folder", "Check the path")
    if not (path / CONFIG).is_file():
        raise ArtifactError(call, f"it holds no {CONFIG}", "Give the folder of save_pretrained()")
    config = read_json(_bytes(call, path / CONFIG, _MOST_CONFIG_BYTES), CONFIG, call)
    _refuse_code(call, CONFIG, config)
    if not isinstance(config.get("model_type"), str):
        raise ArtifactError(call, f"{CONFIG} names no model_type", "Give the folder of save_pretrained()")
    return config


def _refuse_code(call: str, name: str, config: Mapping[str, Any]) -> None:
    for key, _ in _entries(config):
        if key in ("auto_map", "custom_pipelines"):
            raise ArtifactError(
                call,
                f"{name} has {key!r}: it is built by code that lies in the folder, and that is never run",
                "Use an architecture that transformers has, or build the network in a task file of your own",
            )


def _check_depth(call: str, config: Mapping[str, Any], tensors: int) -> None:
    """A network of a billion layers is not begun: each layer has a tensor at least."""
    for key, value in _entries(config):
        deep = any(word in key for word in ("layers", "n_layer", "depth", "blocks"))
        if deep and type(value) is int and value > tensors:
            raise ArtifactError(call, f"{CONFIG}: {key} is {value}, of {tensors} tensors", _COPY)


def _entries(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > 8:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key), inner
            yield from _entries(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value[:1000]:
            yield from _entries(inner, depth + 1)


def _bytes(call: str, path: Path, most: int = _MOST_BESIDE_BYTES) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise ArtifactError(call, f"{path.name} has {size} bytes, over {most}", "Check what it is")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            call, f"{path.name} cannot be read ({error.strerror})", "Check its rights"
        ) from error
