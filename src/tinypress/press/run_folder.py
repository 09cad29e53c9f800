"""The folder of one run: what is finished lies whole under its final name, so that a killed run goes on from there.

RUN/receipt.json report.html recipe.json
RUN/artifacts/   the files that ship
RUN/state/       run.json (what this run is), steps/ (networks between steps), training/ (a step in the middle of
                 its training), made/ (hashes of artifacts), measured/ (candidates)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from tinypress.archive import read_archive, write_archive
from tinypress.errors import ArtifactError, RunError
from tinypress.facts import Change, Compressed, Note
from tinypress.files import canonical, sha256, write_bytes, write_json
from tinypress.receipt import Artifact, Candidate, File, Receipt
from tinypress.train.checkpoint import Checkpoint


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and its finished parts."""

    path: Path

    @property
    def receipt_path(self) -> Path:
        return self.path / "receipt.json"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def state(self) -> Path:
        return self.path / "state"

    def load_step(self, key: str, stock: nn.Module) -> tuple[Compressed, float] | None:
        """The network after the step with this key and the seconds it took, if it was finished."""
        facts_path = self.state / "steps" / f"{key}.json"
        if not facts_path.exists():
            return None
        try:
            facts = json.loads(facts_path.read_text())
            kept = read_archive(self.state / "steps" / f"{key}.safetensors", stock)
            changes = tuple(Change(**change) for change in facts["changes"])
            notes = tuple(Note(**note) for note in facts["notes"])
        except (ArtifactError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # a damaged intermediate is only a copy: the step is done again
        return Compressed(kept.model.eval(), changes, notes, kept.pruned, kept.plan), float(facts["seconds"])

    def save_step(self, key: str, compressed: Compressed, seconds: float) -> None:
        """Keep the network after a step; the facts are written last, and mark it as finished."""
        write_archive(self.state / "steps" / f"{key}.safetensors", compressed)
        facts = {
            "changes": [asdict(change) for change in compressed.changes],
            "notes": [asdict(note) for note in compressed.notes],
            "seconds": seconds,
        }
        write_json(self.state / "steps" / f"{key}.json", facts)
        self.checkpoint(key).path.unlink(missing_ok=True)
        shutil.rmtree(self.checkpoint(key).folder, ignore_errors=True)

    def checkpoint(self, key: str) -> Checkpoint:
        """Where the training of the step with this key is kept until the step is finished."""
        return Checkpoint(self.state / "training" / f"{key}.safetensors", key=key)

    def holds_artifact(self, name: str, paths: Sequence[Path]) -> bool:
        """Whether the artifact called ``name`` lies at ``paths`` as it was written: its file, and those beside it."""
        try:
            return (self.state / "made" / f"{name}.sha256").read_bytes() == _hashes(paths)
        except OSError:
            return False

    def note_artifact(self, name: str, paths: Sequence[Path]) -> None:
        """Note what was written to ``paths``: what is another file later is written again."""
        write_bytes(self.state / "made" / f"{name}.sha256", _hashes(paths))

    def load_candidate(self, name: str) -> Candidate | None:
        """The measured candidate called ``name``, if its artifact is still the one that was measured."""
        try:
            candidate = Candidate.model_validate_json((self.state / "measured" / f"{name}.json").read_text())
        except (OSError, ValidationError):
            return None
        return candidate if self._holds(candidate) else None

    def holds_artifacts(self, receipt: Receipt) -> bool:
        """Whether every artifact of the receipt lies there as it was measured."""
        return all(self._holds(candidate) for candidate in receipt.candidates)

    def _holds(self, candidate: Candidate) -> bool:
        stored: list[Artifact | File] = [candidate.artifact, *candidate.artifact.files]
        try:
            return all(sha256((self.path / file.path).read_bytes()) == file.sha256 for file in stored)
        except OSError:
            return False

    def save_candidate(self, candidate: Candidate) -> None:
        """Keep what was measured of a candidate."""
        write_json(self.state / "measured" / f"{candidate.name}.json", candidate.model_dump(mode="json"))


def _hashes(paths: Sequence[Path]) -> bytes:
    return "\n".join(sha256(path.read_bytes()) for path in paths).encode()


@contextlib.contextmanager
def open_run(path: Path, identity: dict[str, Any], *, fresh: bool = False) -> Iterator[RunFolder]:
    """Begin a run in ``path``, or continue the one that is there; no second process may enter meanwhile.

    Args:
        identity: everything that the run's results depend on. A folder that holds another run is refused.
        fresh: throw away what is there, if it is a run.

    Raises:
        RunError: the folder cannot be written, is in use, holds another run, or holds something else.
    """
    call = f"run in {path.name!r}"
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        foreign = _foreign(folder)
        if foreign:
            raise RunError(
                call,
                f"the folder holds other things: {sorted(foreign)[:3]}",
                "Choose an empty one with --out",
            )
        folder.state.mkdir(exist_ok=True)
        lock = (folder.state / "lock").open("w")
    except OSError as error:
        raise RunError(
            call, f"the folder cannot be written ({error.strerror})", "Choose another with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                call, "another process is working in it", "Wait for it or choose another --out"
            ) from error
        try:
            if fresh:
                _clear(folder)
            _claim(call, folder, identity)
            for part in (
                path,
                folder.artifacts,
                *(inner for inner in folder.artifacts.glob("*") if inner.is_dir()),
                *(folder.state / name for name in ("steps", "training", "made", "measured")),
            ):
                for leftover in part.glob(".*.part"):
                    leftover.unlink()
        except OSError as error:
            raise RunError(
                call, f"its files cannot be used ({error.strerror})", "Choose another with --out"
            ) from error
        yield folder


_OURS = frozenset(
    {
        "receipt.json",
        "report.html",
        "recipe.json",
        "seeds.json",
        "diagnosis.json",
        "diagnosis",
        "artifacts",
        "state",
    }
)


def _foreign(folder: RunFolder) -> list[str]:
    """What in the folder is no run's, so that nobody's own files are continued or cleared away."""
    if (folder.state / "run.json").is_file():
        return []
    found = [item.name for item in folder.path.iterdir() if item.name != "state"]
    if folder.state.is_dir():  # a run that was killed at once holds its lock only
        inner = (item.name for item in folder.state.iterdir())
        found += [f"state/{name}" for name in inner if name != "lock" and not name.endswith(".part")]
    return found


def _clear(folder: RunFolder) -> None:
    for item in folder.path.iterdir():
        if item.name in _OURS and item != folder.state:
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    for item in folder.state.iterdir():
        if item.name not in ("lock", "run.json"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    # last, because without it the folder is no longer known as a run
    (folder.state / "run.json").unlink(missing_ok=True)


def _claim(call: str, folder: RunFolder, identity: dict[str, Any]) -> None:
    path = folder.state / "run.json"
    if path.exists():
        try:
            there = json.loads(path.read_text())
            there = there if isinstance(there, dict) else {}
        except (ValueError, RecursionError):
            there = {}
        if there != json.loads(canonical(identity)):
            differs = sorted(key for key in {*there, *identity} if there.get(key) != identity.get(key))
            raise RunError(
                call,
                f"the folder holds a run that differs in {', '.join(differs)}",
                "Choose another folder with --out, or start over with --fresh",
            )
        return
    write_json(path, identity)


def read_receipt(path: Path) -> Receipt:
    """The receipt of the run in folder ``path``.

    Raises:
        RunError: there is none, or it is not a receipt of this format; names the first wrong field.
    """
    call = f"read_receipt({path.name!r})"
    try:
        text = (path / "receipt.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            call, "there is no readable receipt.json", "Give the folder of a finished run"
        ) from error
    try:
        receipt = Receipt.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(call, f"{field}: {first['msg']}", "Restore the file or run again") from error
    names = [candidate.name for candidate in receipt.candidates]
    for field, wrong in (
        ("candidates", len(set(names)) != len(names)),
        ("candidates", [candidate.role for candidate in receipt.candidates].count("baseline") != 1),
        ("chosen", receipt.chosen not in names),
        ("pareto", not set(receipt.pareto) <= set(names)),
    ):
        if wrong:
            raise RunError(
                call, f"{field}: the names or roles do not fit together", "Restore the file or run again"
            )
    return receipt
