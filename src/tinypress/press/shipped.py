"""Writes what ships of one recipe: the network's file and, for a task that has some, the files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import nn

from tinypress.archive import write_archive
from tinypress.errors import TaskError
from tinypress.facts import Compressed, Note
from tinypress.files import sha256, write_bytes
from tinypress.press.recipe import Recipe, Shipment
from tinypress.press.run_folder import RunFolder
from tinypress.receipt import Artifact, File
from tinypress.ship import write_onnx
from tinypress.ship.equal import MOST_SAMPLES
from tinypress.task import Companions, Task

SUFFIX: dict[Shipment, str] = {"onnx": ".onnx", "archive": ".safetensors"}
# Beside a config.json: what looks for an ONNX file there expects that name, and what looks for
# model.safetensors expects plain tensors, which an archive does not hold.
_IN_FOLDER: dict[Shipment, str] = {"onnx": "model.onnx", "archive": "archive.safetensors"}


@dataclass(frozen=True)
class Shipped:
    """A recipe's artifact on disk, with what the techniques said on the way; ``beside`` names its companions."""

    recipe: Recipe
    shipment: Shipment
    name: str
    compressed: Compressed
    seconds: float
    beside: tuple[str, ...] | None = None

    @property
    def name_in_run(self) -> str:
        """Where the network's file lies, relative to the run folder."""
        if self.beside is None:
            return f"artifacts/{self.name}{SUFFIX[self.shipment]}"
        return f"artifacts/{self.name}/{_IN_FOLDER[self.shipment]}"

    @property
    def names_beside(self) -> tuple[str, ...]:
        """Where its companions lie, relative to the run folder."""
        return tuple(f"artifacts/{self.name}/{name}" for name in self.beside or ())


def shipments(recipe: Recipe) -> list[tuple[str, Shipment]]:
    """Names of a recipe's artifacts: the recipe's own, with the form behind it from the second on."""
    first, *rest = dict.fromkeys(recipe.ship)
    return [(recipe.name, first), *((f"{recipe.name}.{form}", form) for form in rest)]


def ship(
    folder: RunFolder, recipe: Recipe, compressed: Compressed, seconds: float, task: Task
) -> list[Shipped]:
    """The recipe's artifacts, written into ``folder`` unless they lie there as they were written.

    Raises:
        TaskError: the task's ``companions`` fails or names files that cannot ship.
    """
    beside = companions_of(task, compressed.model)
    told = {(note.code, note.layer) for note in compressed.notes}
    news = () if beside is None else tuple(n for n in beside.notes if (n.code, n.layer) not in told)
    names = None if beside is None else tuple(sorted(beside.files))
    notes = (*compressed.notes, *news)
    with_notes = Compressed(compressed.model, compressed.changes, notes, compressed.pruned, compressed.plan)
    made = []
    for name, shipment in shipments(recipe):
        item = Shipped(recipe, shipment, name, with_notes, seconds, names)
        files = {} if beside is None else dict(sorted(beside.files.items()))
        write_artifact(
            folder,
            name,
            folder.path / item.name_in_run,
            shipment,
            compressed,
            task,
            files,
            recipe.signed_weights,
        )
        made.append(item)
    return made


def write_artifact(
    folder: RunFolder,
    name: str,
    path: Path,
    shipment: Shipment,
    compressed: Compressed,
    task: Task,
    beside: Mapping[str, bytes] = MappingProxyType({}),
    signed_weights: bool | None = None,
) -> None:
    """Ship ``compressed`` as ``path`` with the files ``beside`` it, unless they lie there as they were written."""
    paths = [path, *(path.with_name(inner) for inner in beside)]
    if folder.holds_artifact(name, paths):
        return
    for place, data in zip(paths[1:], beside.values(), strict=True):
        write_bytes(place, data)
    write_network(path, shipment, compressed, task, signed_weights)
    folder.note_artifact(name, paths)


def write_network(
    path: Path,
    shipment: Shipment,
    compressed: Compressed,
    task: Task,
    signed_weights: bool | None = None,
) -> None:
    """Write the network's own file, an ONNX file after its integers were compared with the reference."""
    if shipment == "onnx":
        some = task.validation.take(slice(0, MOST_SAMPLES)).inputs
        write_onnx(
            path,
            compressed,
            task.example_inputs,
            check=some,
            free_length=task.free_length,
            signed_weights=signed_weights,
        )
    else:
        write_archive(path, compressed)


def files_beside(run: Path, names: tuple[str, ...]) -> tuple[File, ...]:
    """The facts of companions, each at its name relative to the folder ``run``."""
    found = []
    for name in names:
        data = (run / name).read_bytes()
        found.append(File(path=name, bytes=len(data), sha256=sha256(data)))
    return tuple(found)


def with_files(artifact: Artifact, files: tuple[File, ...]) -> Artifact:
    """``artifact`` with the files beside it, their bytes counted."""
    total = artifact.bytes + sum(file.bytes for file in files)
    return artifact.model_copy(update={"bytes": total, "files": files})


def companions_of(task: Task, model: nn.Module) -> Companions | None:
    """What the task ships beside ``model``; None where it ships nothing.

    Raises:
        TaskError: its function fails, or gives anything but files with plain names.
    """
    if task.companions is None:
        return None
    call = f"companions({type(model).__name__}) of task {task.name!r}"
    try:
        given = task.companions(model)
    except Exception as error:
        raise TaskError(call, f"it failed: {type(error).__name__}: {error}", "Mend it") from error
    remedy = "Return Companions({'labels.txt': b'...'})"
    if not isinstance(given, Companions) or not isinstance(given.files, Mapping):
        raise TaskError(call, f"it gives a {type(given).__name__}", remedy)
    for name, data in given.files.items():
        plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name)
        if not plain or name in _IN_FOLDER.values():
            raise TaskError(call, f"{str(name)[:80]!r} cannot be the name of a file there", remedy)
        if not isinstance(data, bytes):
            raise TaskError(call, f"{name!r} holds a {type(data).__name__}, not bytes", remedy)
    assert all(isinstance(note, Note) for note in given.notes)
    return given
