"""Repeats recipes with several seeds, each a run of its own that can be continued, and says what holds over them.

RUN/seed-N/      the run with seed N, whole: receipt, artifacts, state
RUN/seeds.json   the summary: means, spreads, intervals over seeds and samples, controls beside what they control
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from torch import Tensor

from tinypress.errors import InputError, RunError, TaskError
from tinypress.files import write_json
from tinypress.measure.quality import NamedMetric
from tinypress.measure.resample import count_units
from tinypress.measure.seeds import mean_and_spread, mean_drop
from tinypress.press.check import check_arguments, metric_of
from tinypress.press.engine import Engine
from tinypress.press.measured import answers_on_test
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.run_folder import open_run, read_receipt
from tinypress.press.verify import Mismatch, verify
from tinypress.receipt import Candidate, Receipt
from tinypress.summary import SeedPair, SeedRow, SeedSummary
from tinypress.task import Task
from tinypress.train.loop import Progress, silent

SUMMARY = "seeds.json"
MOST = 100


def press_with_seeds(
    task: Task,
    recipes: Sequence[Recipe],
    out: Path,
    *,
    seeds: int,
    seed: int = 0,
    engine: Engine | None = None,
    threads: int = 1,
    latency_threads: int = 1,
    device: str = "cpu",
    tolerance: float | None = None,
    max_bytes: int | None = None,
    fresh: bool = False,
    skip_inapplicable: bool = False,
    progress: Progress = silent,
) -> SeedSummary:
    """Press ``task`` by each recipe with the seeds ``seed`` to ``seed + seeds - 1`` and summarise over them.

    The trained network is the task's, one for all seeds: what varies is the luck of the recipe. Runs that are there
    are continued, so that a second call with more seeds adds the missing ones; see ``press`` for the other arguments.

    Raises:
        InputError: ``seeds`` is not a whole number from 2 to 100, or as ``press``.
        RunError: a folder cannot be used.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 2 <= seeds <= MOST:
        raise InputError(
            f"press_with_seeds(seeds={seeds!r})",
            "that is out of range",
            f"Give a whole number from 2 to {MOST}",
        )
    numbers = {"seed": seed, "threads": threads, "latency_threads": latency_threads}
    check_arguments(task, recipes, out, numbers, tolerance)
    with open_run(out, {"seeds": "a run of runs", "task": task.name}, fresh=fresh):
        if fresh:
            for old in out.glob("seed-*"):
                if (old / "state" / "run.json").is_file():
                    shutil.rmtree(old)
        chosen = range(seed, seed + seeds)
        receipts = {}
        for done, each in enumerate(chosen):
            receipts[each] = press(
                task,
                recipes,
                out / f"seed-{each}",
                engine=engine,
                seed=each,
                threads=threads,
                latency_threads=latency_threads,
                device=device,
                tolerance=tolerance,
                max_bytes=max_bytes,
                skip_inapplicable=skip_inapplicable,
                progress=_of_seed(progress, done, seeds),
            )
        control_of = {r.name: r.control_of for r in recipes if r.control_of is not None}
        summary = summarise(task, out, receipts, control_of, progress)
        write_json(out / SUMMARY, summary.model_dump(mode="json"))
        return summary


def summarise(
    task: Task,
    out: Path,
    receipts: Mapping[int, Receipt],
    control_of: Mapping[str, str],
    progress: Progress = silent,
) -> SeedSummary:
    """What holds over the runs ``receipts`` (seed to receipt) in ``out``; every artifact answers the test split again.

    Only artifacts that every run has are summarised. A control stands beside the artifact of the same form.

    Raises:
        ArtifactError: an artifact cannot be opened.
        RunError: the runs have no artifact in common, or differ in tolerance.
    """
    metric = metric_of(task)
    all_receipts = list(receipts.values())
    first = all_receipts[0]
    names = [
        c.name
        for c in first.candidates
        if all(c.name in {o.name for o in r.candidates} for r in all_receipts)
    ]
    if first.baseline.name not in names or any(r.tolerance != first.tolerance for r in all_receipts):
        raise RunError(
            f"summarise({out.name!r})",
            "the runs are not of one baseline and tolerance",
            "Start over with --fresh",
        )
    names = [first.baseline.name, *(name for name in names if name != first.baseline.name)]
    answers: dict[str, list[Tensor]] = {}
    rows = []
    for done, name in enumerate(names):
        progress(f"summarising {name}", done, len(names))
        found = {seed: receipt.candidate(name) for seed, receipt in receipts.items()}
        answers[name] = [
            answers_on_test(out / f"seed-{seed}" / each.artifact.path, each.artifact.runtime, task, metric)
            for seed, each in found.items()
        ]
        rows.append(
            _row(task, metric, list(found.values()), answers[first.baseline.name], answers[name], first)
        )
    progress("summarised", len(names), len(names))
    paired = {c: control_of[c] for c in names if c in control_of and control_of[c] in names}
    return SeedSummary(
        tinypress=version("tinypress"),
        task=task.name,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        tolerance=first.tolerance,
        samples=len(task.test),
        groups=count_units(task.test.targets, task.test.groups),
        seeds=tuple(receipts),
        receipts=tuple(receipt.checksum for receipt in all_receipts),
        rows=tuple(rows),
        pairs=tuple(_pair(task, metric, answers, name, control) for control, name in paired.items()),
    ).sealed()


def verify_seeds(path: Path, task: Task, progress: Progress = silent) -> tuple[Mismatch, ...]:
    """Check the run of runs in ``path``: each of them by ``verify``, then the summary made again from their artifacts.

    Raises:
        RunError: there is no summary of this format, or a run is missing.
        TaskError: the runs are of another task.
    """
    said = read_summary(path)
    if said.task != task.name:
        raise TaskError(
            f"verify_seeds({path.name!r})", f"it is a run of {said.task!r}, not {task.name!r}", "Give --task"
        )
    found = []
    if said.computed_checksum() != said.checksum:
        found.append(Mismatch("checksum", said.checksum, said.computed_checksum()))
    for done, seed in enumerate(said.seeds):
        inner = verify(path / f"seed-{seed}", task, _of_seed(progress, done, len(said.seeds)))
        found += [Mismatch(f"seed-{seed}.{m.field}", m.said, m.found, m.tolerated) for m in inner]
    if any(not mismatch.tolerated for mismatch in found):
        return tuple(found)
    receipts = {seed: read_receipt(path / f"seed-{seed}") for seed in said.seeds}
    now = summarise(task, path, receipts, {pair.control: pair.name for pair in said.pairs}, progress)
    then_values, now_values = said.model_dump(), now.model_dump()
    found += [
        Mismatch(field, then_values[field], now_values[field])
        for field in then_values
        if field not in ("checksum", "tinypress") and then_values[field] != now_values[field]
    ]
    return tuple(found)


def read_summary(path: Path) -> SeedSummary:
    """The summary of the run of runs in folder ``path``.

    Raises:
        RunError: there is none, or it is not one of this format; names the first wrong field.
    """
    call = f"read_summary({path.name!r})"
    try:
        return SeedSummary.model_validate_json((path / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            call, f"there is no readable {SUMMARY}", "Give the folder of a run with --seeds"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(call, f"{field}: {first['msg']}", "Restore the file or run again") from error


def _row(
    task: Task,
    metric: NamedMetric,
    found: Sequence[Candidate],
    baseline: Sequence[Tensor],
    answers: Sequence[Tensor],
    receipt: Receipt,
) -> SeedRow:
    first = found[0]
    qualities = tuple(candidate.quality.value for candidate in found)
    mean, spread = mean_and_spread(qualities)
    tolerance = receipt.tolerance.value
    return SeedRow(
        name=first.name,
        role=first.role,
        about=first.about,
        bytes=tuple(candidate.artifact.bytes for candidate in found),
        quality=qualities,
        mean=mean,
        spread=spread,
        drop=None
        if first.role == "baseline"
        else mean_drop(
            baseline, answers, task.test.targets, task.test.groups, metric, tolerance, receipt.seed
        ),
    )


def _pair(
    task: Task, metric: NamedMetric, answers: Mapping[str, Sequence[Tensor]], name: str, control: str
) -> SeedPair:
    """What the control loses to the candidate: its drop with the candidate in the baseline's place."""
    difference = mean_drop(
        answers[name], answers[control], task.test.targets, task.test.groups, metric, 0.0, 0
    )
    verdict: Literal["better", "worse", "cannot tell"] = "cannot tell"
    if difference.low > 0:
        verdict = "better"
    elif difference.high < 0:
        verdict = "worse"
    return SeedPair(name=name, control=control, difference=difference, verdict=verdict)


def _of_seed(progress: Progress, number: int, seeds: int) -> Progress:
    """Reports of one run, told apart from those of the others."""
    return lambda what, done, total: progress(f"{what}, seed {number + 1}/{seeds}", done, total)
