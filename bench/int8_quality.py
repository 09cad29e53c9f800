"""int8 files beside those of the peers: one float ONNX file, the same calibration samples, one runtime judges all.

Ours is ``quantize_model`` with its defaults and ``to_onnx``. Each row compares ours with one peer on the same test
samples. Its p says how likely a difference this large is where there is none: Student's on the paired bootstrap over
groups, and for proportions never below McNemar's exact one. Holm's correction is over all rows of the run.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from rich.table import Table
from scipy import stats

from bench.int8_peers import feeds_of, for_quality, load_all
from tinypress.float_onnx import to_float_onnx
from tinypress.measure.interval import mcnemar_exact
from tinypress.measure.quality import Evaluation, NamedMetric, evaluate, resolve_metric
from tinypress.measure.resample import count_units, resampled
from tinypress.measure.verdict import discordant, metric_interval, paired_drop
from tinypress.quantize import quantize_model
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import to_onnx
from tinypress.task import Split, Task
from tinypress.tasks import crepe, efficientnet
from tinypress.tasks.find import find_task

SAMPLES = 64  # that the ranges are calibrated on
LEVEL = 0.05
_FULL_CLIPS = 60  # of CREPE full, which is slow
_BATCH = 16
_MINILM = ("minilm", "minilm-films", "minilm-mail", "minilm-wordsim", "minilm-simlex")
_OURS, _FLOAT = "ours", "float"


@dataclass(frozen=True)
class Subject:
    """A network with what it is calibrated on, and the splits it is judged on by name."""

    task: Task
    tests: Mapping[str, tuple[Split, NamedMetric]]


def subjects() -> dict[str, Callable[[], Subject]]:
    """The networks by name."""
    named: dict[str, Callable[[], Subject]] = {
        name: lambda name=name: _of_task(find_task(name))  # type: ignore[misc]
        for name in ("watch", "digits", "crepe-tiny", *_MINILM)
    }
    return {**named, "crepe-full": _crepe_full, "efficientnet-lite0": _efficientnet}


def measure(only: Sequence[str] = ()) -> dict[str, Any]:
    """For each test: every file's quality and bytes, and ours against each peer with Holm's p over all of them."""
    load_all()
    tests: dict[str, Any] = {}
    for name, make in subjects().items():
        if not only or name in only:
            tests |= _measured(make())
    rows = [(test, peer) for test, found in tests.items() for peer in found["against"]]
    corrected = holm([tests[test]["against"][peer]["p"] for test, peer in rows])
    for (test, peer), p in zip(rows, corrected, strict=True):
        against = tests[test]["against"][peer]
        against |= {"holm_p": p, "below": against["lost"] > 0 and p < LEVEL}
    return {"samples": SAMPLES, "rows": len(rows), "tests": tests}


def holm(p_values: Sequence[float]) -> list[float]:
    """p of each of m hypotheses corrected for all: max over those not larger, j-th smallest times m - j + 1.

    Reference: Holm, Scandinavian Journal of Statistics 6:65 (1979).
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    corrected, so_far = [1.0] * len(p_values), 0.0
    for place, k in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * p_values[k]))
        corrected[k] = so_far
    return corrected


def _of_task(task: Task) -> Subject:
    return Subject(task, {task.name: (task.test, resolve_metric(task.metric, task.higher_is_better))})


def _crepe_full() -> Subject:
    task = crepe.load_full()
    part = crepe.sounds("test", crepe.SNR_DB, _FULL_CLIPS)
    return Subject(task, {task.name: (part, crepe.RAW_PITCH_ACCURACY)})


def _efficientnet() -> Subject:
    task = efficientnet.load()
    labelled = efficientnet.labelled()
    return Subject(
        task,
        {
            "efficientnet-lite0, agreement": (task.test, efficientnet.AGREEMENT),
            "efficientnet-lite0, labelled": (labelled, resolve_metric("accuracy", True)),
        },
    )


def _measured(subject: Subject) -> dict[str, Any]:
    task = subject.task
    assert task.train is not None
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    calibration = task.train.take(order[:SAMPLES])
    files: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    proto = to_float_onnx(task.model, task.example_inputs)
    files[_FLOAT] = proto.SerializeToString()
    made = quantize_model(task.model, calibration, task.example_inputs)
    files[_OURS] = to_onnx(made, task.example_inputs).SerializeToString()
    feeds = feeds_of([value.name for value in proto.graph.input], calibration.inputs)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(files[_FLOAT])
        for name, peer in for_quality(task.name in _MINILM).items():
            try:
                peer(source, target, feeds)
                files[name] = onnx.load(target).SerializeToString()  # with what it keeps outside
            except Exception as error:
                refused[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            for left in Path(folder).glob("int8*"):
                left.unlink()
    return {
        test: {"refused": refused, **_compared(files, split, metric)}
        for test, (split, metric) in subject.tests.items()
    }


def _compared(files: Mapping[str, bytes], split: Split, metric: NamedMetric) -> dict[str, Any]:
    found = {
        name: evaluate(open_onnx(data), split, metric, batch_size=_BATCH) for name, data in files.items()
    }
    return {
        "metric": metric.name,
        "unit": metric.unit,
        "samples": len(split),
        "groups": count_units(split.targets, split.groups),
        "files": {
            name: {
                "bytes": len(files[name]),
                "value": each.value,
                "interval": metric_interval(each.outputs, split.targets, split.groups, metric, 0),
            }
            for name, each in found.items()
        },
        "against": {
            name: _against(each, found[_OURS], split, metric)
            for name, each in found.items()
            if name not in (_OURS, _FLOAT)
        },
    }


def _against(peer: Evaluation, ours: Evaluation, split: Split, metric: NamedMetric) -> dict[str, Any]:
    """What ours lost to the peer, positive where ours is worse, with its 95 % interval and the p of no difference."""
    drop = paired_drop(peer.outputs, ours.outputs, split.targets, split.groups, metric, 0.0, 0)
    return {
        "lost": drop.value,
        "low": drop.low,
        "high": drop.high,
        "p": _p(peer, ours, split, metric),
    }


def _p(peer: Evaluation, ours: Evaluation, split: Split, metric: NamedMetric) -> float:
    units = count_units(split.targets, split.groups)
    values = resampled((peer.outputs, ours.outputs), split.targets, split.groups, metric, 0)
    # a bootstrap of few units is too narrow by sqrt((n - 1) / n), as in measure/interval.py
    spread = float((values[:, 0] - values[:, 1]).std()) * math.sqrt(units / (units - 1))
    lost = peer.value - ours.value
    p = float(2 * stats.t.sf(abs(lost) / spread, units - 1)) if spread > 0 else float(lost == 0)
    if metric.proportion:
        p = max(p, mcnemar_exact(*discordant(metric, peer.outputs, ours.outputs, split.targets)))
    return p


def table(row: dict[str, Any]) -> Table:
    """A line each test and file."""
    made = Table("test", "file", "MB", "quality", "95 %", "ours lost to it", "95 %", "Holm's p")
    made.title = f"int8 files, {row['samples']} calibration samples; Holm over {row['rows']} rows"
    for line in _lines(row):
        made.add_row(*line)
    return made


def page(row: dict[str, Any], machine: Mapping[str, Any]) -> str:
    """The page of the docs: the same as a Markdown table, and which rows are below."""
    below = [
        f"{test} against {peer}"
        for test, found in row["tests"].items()
        for peer, against in found["against"].items()
        if against["below"]
    ]
    refused = sorted(
        {
            f"{peer} on {test}: {why}"
            for test, found in row["tests"].items()
            for peer, why in found["refused"].items()
        }
    )
    lines = [
        "# int8 beside the peers",
        "",
        "Written by `python -m bench --only int8-quality`. One float ONNX file a network, the same "
        f"{row['samples']} calibration samples for all, every file run in ONNX Runtime on "
        f"{machine['cpu'] or 'this processor'}. *Lost* is what our file is below the peer's on the same test "
        "samples, in points (negative: ours is better), with its 95 % paired interval; p is Holm's over all rows.",
        "",
        f"Below a peer beyond what chance explains: {', '.join(below) if below else 'none'}.",
        "",
        "| test | file | MB | quality | 95 % | ours lost to it | 95 % | Holm's p |",
        "|---|---|---|---|---|---|---|---|",
        *("| " + " | ".join(line) + " |" for line in _lines(row)),
    ]
    if refused:
        lines += ["", "Not made: " + "; ".join(refused) + "."]
    return "\n".join(lines) + "\n"


def _lines(row: dict[str, Any]) -> list[tuple[str, ...]]:
    lines = []
    for test, found in row["tests"].items():
        shown = f"{test} ({found['samples']} samples, {found['groups']} groups)"
        for name, file in found["files"].items():
            low, high = file["interval"]
            against = found["against"].get(name)
            factor = 100.0 if against and found["unit"] == "metric" else 1.0  # correlations in points too
            lost = (
                (
                    f"{factor * against['lost']:.2f}",
                    f"{factor * against['low']:.2f} to {factor * against['high']:.2f}",
                    f"{against['holm_p']:.2f}",
                )
                if against
                else ("", "", "")
            )
            lines.append(
                (
                    shown,
                    name,
                    f"{file['bytes'] / 1e6:.2f}",
                    f"{100 * file['value']:.2f}",
                    f"{100 * low:.2f} to {100 * high:.2f}",
                    *lost,
                )
            )
            shown = ""
    return lines
