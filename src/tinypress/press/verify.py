"""Measures the artifacts of a finished run again and names every field of the receipt that does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tinypress.errors import ArtifactError, TaskError, TinypressError
from tinypress.files import sha256
from tinypress.measure.machine import machine
from tinypress.measure.quality import NamedMetric
from tinypress.press.check import metric_of
from tinypress.press.choose import choose, pareto
from tinypress.press.measured import Judged, Opened, judge_artifact, open_artifact
from tinypress.press.run_folder import read_receipt
from tinypress.receipt import Artifact, Candidate, Equality, File, Receipt
from tinypress.task import Task
from tinypress.train.loop import Progress, silent


@dataclass(frozen=True)
class Mismatch:
    """A field of the receipt, what it says, and what was found. ``tolerated`` where another instruction set
    explains it: the value found lies inside the receipt's interval."""

    field: str
    said: object
    found: object
    tolerated: bool = False


def verify(path: Path, task: Task, progress: Progress = silent) -> tuple[Mismatch, ...]:
    """Check the run in folder ``path``: checksum, bytes, hashes, parameters, MACs, quality, drop, front and choice.

    Raises:
        RunError: there is no receipt of this format.
        TaskError: the receipt is of another task.
    """
    receipt = read_receipt(path)
    if receipt.task != task.name:
        raise TaskError(
            f"verify({path.name!r})", f"it is a run of {receipt.task!r}, not {task.name!r}", "Give --task"
        )
    metric = metric_of(task)
    found: list[Mismatch] = []
    if receipt.computed_checksum() != receipt.checksum:
        found.append(Mismatch("checksum", receipt.checksum, receipt.computed_checksum()))
    same_machine = set(machine(1).isa) == set(receipt.machine.isa)
    baseline: Opened | None = None
    ordered = sorted(receipt.candidates, key=lambda c: c.role != "baseline")
    for done, candidate in enumerate(ordered):
        progress(f"verifying {candidate.name}", done, len(ordered))
        of_file = _file_mismatches(path, candidate)
        found += of_file
        if any(mismatch.field.endswith(".artifact.sha256") for mismatch in of_file):
            # what is not the measured file says nothing about its numbers; without the baseline no drop is known
            if candidate.role == "baseline":
                return tuple(found)
            continue
        try:
            opened, judged = _again(path, candidate, baseline, receipt, task, metric)
        except TinypressError as error:
            found.append(
                Mismatch(f"candidates.{candidate.name}.artifact", candidate.artifact.path, str(error))
            )
            continue
        baseline = baseline or opened
        found += _number_mismatches(candidate, judged, same_machine)
    higher = receipt.higher_is_better
    least = receipt.tolerance.value / (100 if receipt.tolerance.unit == "points" else 1)
    for field, said, now in (
        ("pareto", receipt.pareto, pareto(receipt.candidates, higher)),
        ("chosen", receipt.chosen, choose(receipt.candidates, higher, least, receipt.max_bytes)),
    ):
        if said != now:
            found.append(Mismatch(field, said, now))
    progress("verified", len(ordered), len(ordered))
    return tuple(found)


def _file_mismatches(path: Path, candidate: Candidate) -> list[Mismatch]:
    field = f"candidates.{candidate.name}.artifact"
    artifact = candidate.artifact
    found: list[Mismatch] = []
    total = 0
    stored: list[tuple[str, Artifact | File]] = [(field, artifact)]
    stored += [(f"{field}.files.{each.path}", each) for each in artifact.files]
    for place, file in stored:
        inner = PurePosixPath(file.path)
        depth = 3 if artifact.files else 2  # with files beside it, an artifact has a folder of its own
        outside = inner.is_absolute() or ".." in inner.parts or inner.parts[:1] != ("artifacts",)
        if outside or len(inner.parts) != depth or inner.parent != PurePosixPath(artifact.path).parent:
            raise ArtifactError(
                f"verify({path.name!r})", f"{place}.path leaves the run: {inner}", "Do not trust this run"
            )
        if not (path / inner).is_file():
            return [*found, Mismatch(f"{place}.sha256", file.sha256, "the file is missing")]
        data = (path / inner).read_bytes()
        total += len(data)
        if file is not artifact and len(data) != file.bytes:
            found.append(Mismatch(f"{place}.bytes", file.bytes, len(data)))
        if sha256(data) != file.sha256:
            found.append(Mismatch(f"{place}.sha256", file.sha256, sha256(data)))
    if total != artifact.bytes:
        found.append(Mismatch(f"{field}.bytes", artifact.bytes, total))
    return found


def _again(
    path: Path,
    candidate: Candidate,
    baseline: Opened | None,
    receipt: Receipt,
    task: Task,
    metric: NamedMetric,
) -> tuple[Opened, Judged]:
    threads = candidate.latency_ms.threads if candidate.latency_ms is not None else 1
    form = "onnx" if candidate.artifact.runtime == "onnxruntime" else "archive"
    opened = open_artifact(
        path / candidate.artifact.path, "onnx" if form == "onnx" else "archive", task, metric, threads
    )
    against = None if candidate.role == "baseline" else baseline
    judged = judge_artifact(
        opened, against, candidate.artifact.path, task, metric, receipt.tolerance.value, receipt.seed
    )
    return opened, judged


def _equality_fields(said: Equality | None, now: Equality | None) -> list[tuple[str, object, object]]:
    """All that is said of the integers but the processor that they were checked on."""
    then, again = (x.model_dump(exclude={"checked_on"}) if x is not None else {} for x in (said, now))
    return [(f"equality.{key}", then.get(key), again.get(key)) for key in {**then, **again}]


def _number_mismatches(candidate: Candidate, judged: Judged, same_machine: bool) -> list[Mismatch]:
    prefix = f"candidates.{candidate.name}"
    exact = [
        ("parameters", candidate.parameters, judged.facts.parameters),
        ("nonzero_parameters", candidate.nonzero_parameters, judged.facts.nonzero_parameters),
        ("macs", candidate.macs, judged.facts.macs),
    ]
    found = [Mismatch(f"{prefix}.{field}", said, now) for field, said, now in exact if said != now]
    said_layers = {layer.name: layer for layer in candidate.layers}
    for layer in judged.facts.layers:
        if said_layers.get(layer.name) != layer:
            found.append(Mismatch(f"{prefix}.layers.{layer.name}", said_layers.get(layer.name), layer))
    floating: list[tuple[str, object, object]] = _equality_fields(candidate.equality, judged.equality)
    for part, said_part, now_part in (
        ("validation", candidate.validation, judged.validation),
        ("quality", candidate.quality, judged.quality),
        ("drop", candidate.drop, judged.drop),
    ):
        said, now = (x.model_dump() if x is not None else {} for x in (said_part, now_part))
        floating += [(f"{part}.{key}", said.get(key), now.get(key)) for key in {**said, **now}]
    inside = candidate.quality.low <= judged.quality.value <= candidate.quality.high
    found += [
        Mismatch(f"{prefix}.{field}", said, now, tolerated=not same_machine and inside)
        for field, said, now in floating
        if said != now
    ]
    return found
