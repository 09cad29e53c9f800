"""The files of a checkpoint, one or many, and the index beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinypress.archive.tensors_file import Header, read_json
from tinypress.errors import ArtifactError

INDEX = "model.safetensors.index.json"
ONE = "model.safetensors"


@dataclass(frozen=True)
class Shards:
    """Files ``names`` of the folder ``source`` become files of the folder ``target``. ``indexed`` tells of an index
    beside them, whose ``weight_map`` says which tensor is in which file."""

    source: Path
    target: Path
    names: tuple[str, ...]
    new_name: str | None = None
    indexed: bool = False
    weight_map: tuple[tuple[str, str], ...] = ()

    def renamed(self, name: str) -> str:
        """The name of a file in the target."""
        return self.new_name or name

    def targets(self) -> Iterator[Path]:
        """The files that are written, the index last."""
        for name in self.names:
            yield self.target / self.renamed(name)
        if self.indexed:
            yield self.target / INDEX

    def check(self, call: str, headers: Mapping[str, Header]) -> None:
        """Hold the index against the files.

        Raises:
            ArtifactError: a tensor is missing, or in another file than the index says.
        """
        if not self.indexed:
            return
        found = {(tensor, name) for name, header in headers.items() for tensor in header.entries}
        for tensor, name in sorted(found ^ set(self.weight_map)):
            where = "the index" if (tensor, name) in found else "the file"
            raise ArtifactError(
                call, f"{tensor[:80]!r} of {name} is not in {where}", "Copy the checkpoint again"
            )


def find_shards(call: str, source: Path, target: Path) -> Shards:
    """The files of ``source``: itself, or those of the folder that it is.

    Raises:
        ArtifactError: there is no checkpoint, or its index is not sound.
    """
    if source.is_file():
        return Shards(source.parent, target.parent, (source.name,), target.name)
    index = source / INDEX
    if index.is_file():
        return _indexed(call, source, target, index)
    if (source / ONE).is_file():
        return Shards(source, target, (ONE,))
    raise ArtifactError(
        call, f"{source.name} is no .safetensors file, and no folder with {INDEX} or {ONE}", "Check the path"
    )


def _indexed(call: str, source: Path, target: Path, index: Path) -> Shards:
    try:
        text = index.read_bytes()
    except OSError as error:
        raise ArtifactError(call, f"{INDEX} cannot be read ({error.strerror})", "Check its rights") from error
    weight_map = read_json(text, INDEX, call).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ArtifactError(call, f"{INDEX} has no weight_map", "Copy the checkpoint again")
    for tensor, name in weight_map.items():
        plain = isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")
        if not plain:
            raise ArtifactError(
                call,
                f"{INDEX}: the file of {tensor[:80]!r} is {str(name)[:80]!r}, not a .safetensors file beside it",
                "Copy the checkpoint again",
            )
    names = tuple(sorted(set(weight_map.values())))
    return Shards(source, target, names, None, True, tuple(sorted(weight_map.items())))
