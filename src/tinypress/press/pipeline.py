"""The pipeline: carries out recipes, ships each result, measures the files, seals the receipt.

Every stage is finished on disk before the next begins, and draws its random numbers from the seed alone: a run
that was killed goes on with the same command to the same artifacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tinypress.files import sha256, write_json
from tinypress.measure.machine import machine
from tinypress.measure.quality import NamedMetric
from tinypress.press.applicable import applicable
from tinypress.press.bench import Bench
from tinypress.press.carry_out import carry_out
from tinypress.press.check import check_arguments, check_model, check_recipes, metric_of
from tinypress.press.choose import choose, pareto, passed_over
from tinypress.press.engine import Engine
from tinypress.press.findings import Seen, choice_findings, control_findings, with_findings
from tinypress.press.identity import task_identity
from tinypress.press.measured import (
    Opened,
    energy_of,
    judge_artifact,
    memory_of,
    open_artifact,
    time_artifact,
)
from tinypress.press.recipe import Recipe
from tinypress.press.rehearse import rehearse
from tinypress.press.run_folder import RunFolder, open_run, read_receipt
from tinypress.press.shipped import Shipped, companions_of, files_beside, ship, shipments, with_files
from tinypress.press.steps import check_task
from tinypress.press.threads import torch_threads
from tinypress.receipt import Candidate, Finding, Machine, Receipt, Tolerance
from tinypress.task import Task
from tinypress.train.loop import Progress, silent
from tinypress.train.processes import Processes, one_process


def press(
    task: Task,
    recipes: Sequence[Recipe],
    out: Path,
    *,
    engine: Engine | None = None,
    seed: int = 0,
    threads: int = 1,
    latency_threads: int = 1,
    device: str = "cpu",
    tolerance: float | None = None,
    max_bytes: int | None = None,
    fresh: bool = False,
    skip_inapplicable: bool = False,
    progress: Progress = silent,
) -> Receipt:
    """Press ``task`` by each recipe into the folder ``out``; one recipe must be the baseline.

    Args:
        threads: of training and calibration; results depend on it to the last bit.
        device: where torch trains and teachers answer: 'cpu', or 'cuda' where there is a GPU, which does not give the
            same bits twice. What ships is measured on the processor in any case.
        tolerance: acceptable loss in quality; by default the task's.
        max_bytes: what the chosen file may have at most, with all that ships beside it. Without it integers that are
            slower than the float file of the same network are passed over.
        fresh: start over where ``out`` holds an earlier run; otherwise that run is continued.
        skip_inapplicable: leave out recipes whose technique refuses this network, with a finding that says why.

    Raises:
        InputError: an argument out of range, or one of its kinds RecipeError, TaskError, ModelError, DataError:
            found before any work where that is possible.
        RunError: the folder cannot be used.
    """
    numbers = {"seed": seed, "threads": threads, "latency_threads": latency_threads}
    if max_bytes is not None:
        numbers["max_bytes"] = max_bytes
    check_arguments(task, recipes, out, numbers, tolerance)
    metric = metric_of(task)
    bench = Bench(
        task, engine if engine is not None else Engine(), seed, progress, processes=_processes(device)
    )
    tolerance = task.tolerance if tolerance is None else tolerance
    check_recipes(task, recipes, [name for recipe in recipes for name, _ in shipments(recipe)])
    for recipe in recipes:
        check_task(bench, recipe)
    check_model(task)
    left_out: tuple[Finding, ...] = ()
    if skip_inapplicable:
        recipes, left_out = applicable(task, recipes, seed)
    beside = companions_of(task, task.model)
    identity = {
        **task_identity(task),
        "tinypress": version("tinypress"),
        "engine": bench.engine.name,
        "seed": seed,
        "threads": threads,
        "latency_threads": latency_threads,
        "tolerance": tolerance,
        "recipes": [recipe.model_dump(mode="json") for recipe in recipes],
    }
    if bench.processes is not None:
        identity["device"] = device
    if max_bytes is not None:
        identity["max_bytes"] = max_bytes
    if beside is not None:
        identity["companions"] = {name: sha256(data) for name, data in beside.files.items()}
    with torch_threads(threads), open_run(out, identity, fresh=fresh) as folder:
        if folder.receipt_path.exists():
            receipt = read_receipt(out)
            if folder.holds_artifacts(receipt):
                return receipt
        kept = {"task": task.name, "seed": seed, "threads": threads, "tolerance": tolerance}
        if max_bytes is not None:
            kept["max_bytes"] = max_bytes
        if not skip_inapplicable:
            rehearse(bench, recipes)
        write_json(folder.path / "recipe.json", {**kept, "recipes": identity["recipes"]})
        shipped = _make_all(folder, recipes, bench)
        candidates = _measure_all(folder, shipped, bench, metric, tolerance, latency_threads)
        least = tolerance / (100 if metric.unit == "points" else 1)
        chosen = choose(candidates, metric.higher_is_better, least, max_bytes)
        slower = passed_over(candidates, metric.higher_is_better, least, max_bytes)
        candidates, of_the_choice = choice_findings(candidates, slower, chosen, max_bytes)
        receipt = Receipt(
            tinypress=version("tinypress"),
            task=task.name,
            about=task.about,
            metric=metric.name,
            higher_is_better=metric.higher_is_better,
            machine=machine(threads),
            seed=seed,
            trained_on=device,
            tolerance=Tolerance(value=tolerance, unit=metric.unit),
            max_bytes=max_bytes,
            candidates=candidates,
            pareto=pareto(candidates, metric.higher_is_better),
            chosen=chosen,
        )
        control_of = {r.name: r.control_of for r in recipes if r.control_of is not None}
        receipt = receipt.model_copy(
            update={"findings": (*left_out, *of_the_choice, *control_findings(receipt, control_of))}
        ).sealed()
        write_json(folder.receipt_path, receipt.model_dump(mode="json"))
        return receipt


def _processes(device: str) -> Processes | None:
    """Who trains on ``device``; none for the processor, where every network is already."""
    return None if device == "cpu" else one_process(device)


def _make_all(folder: RunFolder, recipes: Sequence[Recipe], bench: Bench) -> list[Shipped]:
    shipped = []
    for done, recipe in enumerate(recipes):
        bench.progress(f"pressing {recipe.name}", done, 2 * len(recipes))
        shipped += ship(folder, recipe, *carry_out(folder, recipe, bench), bench.task)
    return shipped


def _measure_all(
    folder: RunFolder,
    shipped: Sequence[Shipped],
    bench: Bench,
    metric: NamedMetric,
    tolerance: float,
    latency_threads: int,
) -> tuple[Candidate, ...]:
    on = machine(latency_threads)
    first = next(item for item in shipped if item.recipe.role == "baseline")
    baseline = open_artifact(
        folder.path / first.name_in_run, first.shipment, bench.task, metric, latency_threads
    )
    measured: dict[str, Candidate] = {}
    for done, item in enumerate([first, *(item for item in shipped if item is not first)]):
        bench.progress(f"measuring {item.name}", len(shipped) + done, 2 * len(shipped))
        candidate = folder.load_candidate(item.name)
        if candidate is None:
            opened = (
                baseline
                if item is first
                else open_artifact(
                    folder.path / item.name_in_run, item.shipment, bench.task, metric, latency_threads
                )
            )
            candidate = _measure(
                folder,
                item,
                opened,
                None if item is first else baseline,
                measured.get(first.name),
                bench,
                metric,
                tolerance,
                on,
            )
            folder.save_candidate(candidate)
        measured[item.name] = candidate
    bench.progress("sealing the receipt", 2 * len(shipped), 2 * len(shipped))
    return tuple(measured[item.name] for item in shipped)


def _measure(
    folder: RunFolder,
    item: Shipped,
    opened: Opened,
    baseline: Opened | None,
    baseline_candidate: Candidate | None,
    bench: Bench,
    metric: NamedMetric,
    tolerance: float,
    on: Machine,
) -> Candidate:
    judged = judge_artifact(opened, baseline, item.name_in_run, bench.task, metric, tolerance, bench.seed)
    memory = memory_of(opened, bench.task, on.threads)
    artifact = with_files(judged.artifact, files_beside(folder.path, item.names_beside))
    candidate = Candidate(
        name=item.name,
        role=item.recipe.role,
        about=item.recipe.about,
        recipe=tuple(step.model_dump(mode="json") for step in item.recipe.steps),
        artifact=artifact,
        parameters=judged.facts.parameters,
        nonzero_parameters=judged.facts.nonzero_parameters,
        macs=judged.facts.macs,
        latency_ms=time_artifact(opened, baseline, bench.task, on.threads),
        peak_memory_bytes=memory.quantity,
        energy_mj=energy_of(judged.facts),
        validation=judged.validation,
        quality=judged.quality,
        drop=judged.drop,
        seconds=item.seconds,
        layers=judged.facts.layers,
        equality=judged.equality,
    )
    seen = Seen(candidate, baseline_candidate or candidate, judged.facts, on)
    return with_findings(seen, item.compressed.notes, memory.reason)
