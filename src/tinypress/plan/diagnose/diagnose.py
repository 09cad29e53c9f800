"""``diagnose``: why a candidate of a finished run loses quality, and a recipe that loses less.

What a layer costs in the metric is asked by sparing one at a time. Everything is chosen on validation; what came out is
measured on test once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tinypress.diagnosis import Diagnosis, LayerApart, Outcome, StepLoss, Trial
from tinypress.errors import ArtifactError, InputError, RunError, TaskError, TinypressError
from tinypress.facts import Compressed
from tinypress.files import sha256, write_json
from tinypress.plan.diagnose.case import Attempt, Case, attempt, network_after, run_on_validation
from tinypress.plan.diagnose.evidence import Evidence, compare_layers, measures, snr, spare_each, worst_first
from tinypress.plan.diagnose.needed import only_needed
from tinypress.plan.diagnose.remedies import Remedy, Steps, menu
from tinypress.plan.diagnose.story import tell, the_cause
from tinypress.press.bench import Bench
from tinypress.press.check import metric_of
from tinypress.press.engine import Engine
from tinypress.press.measured import Opened, judge_artifact, open_artifact
from tinypress.press.recipe import Recipe, Shipment, step_from
from tinypress.press.run_folder import RunFolder, open_run, read_receipt
from tinypress.press.step import Qat, Quantize
from tinypress.press.threads import torch_threads
from tinypress.receipt import Candidate, Finding, Receipt, Tolerance
from tinypress.ship.signs import DOT_PRODUCTS
from tinypress.task import Task
from tinypress.train.loop import Progress, silent


def diagnose(
    run: Path,
    task: Task,
    *,
    candidate: str | None = None,
    tolerance: float | None = None,
    engine: Engine | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> Diagnosis:
    """Look into a candidate of the finished run in ``run``, and try remedies until it is within the tolerance.

    Writes ``RUN/diagnosis/CANDIDATE/``: ``diagnosis.json``, the mended artifact and ``recipe.json``, which ``tinypress
    press`` carries out. A diagnosis that was stopped goes on with the same call.

    Args:
        candidate: its name; by default the chosen one, or the smallest where the baseline was chosen.
        tolerance: acceptable loss; by default the run's.
        fresh: start over where an earlier diagnosis lies.

    Raises:
        RunError: there is no finished run, or another diagnosis lies in its folder.
        ArtifactError: an artifact is missing or another than was measured.
        TaskError: the run is of another task.
        InputError: there is no such candidate, or it is the baseline.
    """
    receipt = read_receipt(run)
    call = f"diagnose({run.name!r}, {task.name!r})"
    if receipt.task != task.name:
        raise TaskError(call, f"it is a run of {receipt.task!r}", "Give --task")
    looked_at = _candidate(call, receipt, candidate)
    allowed = receipt.tolerance.value if tolerance is None else tolerance
    if not 0 <= allowed < float("inf"):
        raise InputError(f"{call}, tolerance={tolerance!r}", "that is no loss", "Give 0 or more")
    files = {c.name: _file(call, run, c) for c in (receipt.baseline, looked_at)}
    identity = {
        "run": receipt.checksum,
        "candidate": looked_at.name,
        "tolerance": allowed,
        "tinypress": version("tinypress"),
    }
    place = run / "diagnosis" / looked_at.name
    with torch_threads(receipt.machine.threads), open_run(place, identity, fresh=fresh) as folder:
        finished = folder.path / "diagnosis.json"
        if finished.exists():
            return read_diagnosis(place)
        metric = metric_of(task)
        form: Shipment = "onnx" if looked_at.artifact.runtime == "onnxruntime" else "archive"
        base_form: Shipment = "onnx" if receipt.baseline.artifact.runtime == "onnxruntime" else "archive"
        steps = tuple(step_from(raw) for raw in looked_at.recipe)
        baseline = open_artifact(files[receipt.baseline.name], base_form, task, metric, 1)
        beside = sum(file.bytes for file in looked_at.artifact.files)
        bench = Bench(task, engine if engine is not None else Engine(), receipt.seed, progress)
        case = Case(
            task, metric, bench, RunFolder(run), folder, form, baseline.validation, beside, _signs(looked_at)
        )
        found = Attempt(
            steps, network_after(case, steps), files[looked_at.name],
            run_on_validation(case, files[looked_at.name]), 0.0,
        )  # fmt: skip
        losses = _step_losses(case, steps, found)
        evidence = _evidence(case, found, losses)
        best, trials = _mend(case, found, evidence, allowed)
        mended = case.loss(best.evaluation.value) <= allowed
        limit = Tolerance(value=allowed, unit=receipt.tolerance.unit)
        diagnosis = Diagnosis(
            tinypress=version("tinypress"),
            task=task.name,
            candidate=looked_at.name,
            metric=metric.name,
            higher_is_better=metric.higher_is_better,
            tolerance=limit,
            baseline_validation=case.baseline.value,
            samples=len(task.validation),
            step_losses=losses,
            layers=evidence.layers,
            layers_after=_layers_of(case, best) if best is not found else (),
            layer_losses=evidence.losses,
            trials=trials,
            findings=tuple(
                Finding(code=n.code, severity=n.severity, layer=n.layer, text=n.text)
                for n in dict.fromkeys(best.compressed.notes)
            ),
            before=_outcome(case, found, looked_at),
            after=_measured(case, best, baseline, allowed) if best is not found else None,
            cause=the_cause(trials, case.loss(found.evaluation.value), evidence.layers),
            story=tell(losses, evidence.layers, evidence.losses, trials, limit, mended),
            mended=mended,
            steps=tuple(step.model_dump(mode="json") for step in best.steps),
        )
        _write_recipe(case, looked_at, best, receipt)
        write_json(finished, diagnosis.model_dump(mode="json"))
        return diagnosis


def read_diagnosis(place: Path) -> Diagnosis:
    """The diagnosis in folder ``place``.

    Raises:
        RunError: there is none, or it is not of this format.
    """
    call = f"read_diagnosis({place.name!r})"
    try:
        return Diagnosis.model_validate_json((place / "diagnosis.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(call, "there is no readable diagnosis.json", "Run `tinypress diagnose RUN`") from error


def _candidate(call: str, receipt: Receipt, name: str | None) -> Candidate:
    others = [c for c in receipt.candidates if c.role != "baseline"]
    if not others:
        raise InputError(call, "the run has a baseline only", "Press the task by a recipe first")
    if name is None:
        chosen = receipt.candidate(receipt.chosen)
        return chosen if chosen.role != "baseline" else min(others, key=lambda c: c.artifact.bytes)
    found = next((c for c in others if c.name == name), None)
    if found is None:
        raise InputError(
            f"{call}, candidate={name!r}", "the run has no such candidate",
            f"Name one of {', '.join(c.name for c in others)}",
        )  # fmt: skip
    return found


def _file(call: str, run: Path, candidate: Candidate) -> Path:
    inner = Path(candidate.artifact.path)
    if inner.is_absolute() or ".." in inner.parts:
        raise ArtifactError(call, f"the path {str(inner)!r} leaves the run", "Do not trust this run")
    try:
        same = sha256((run / inner).read_bytes()) == candidate.artifact.sha256
    except OSError:
        same = False
    if not same:
        raise ArtifactError(
            call, f"{str(inner)!r} is missing or is not the file that was measured", "Run the recipe again"
        )
    return run / inner


def _step_losses(case: Case, steps: Steps, found: Attempt) -> tuple[StepLoss, ...]:
    """What each step lost on validation; a step that trains may bring something back, which is a negative loss."""
    told, last = [], case.baseline.value
    for count, step in enumerate(steps, start=1):
        case.bench.progress("measuring after each step", count - 1, len(steps))
        now = (found if count == len(steps) else attempt(case, steps[:count])).evaluation.value
        settings = step.model_dump(exclude_defaults=True, exclude={"technique"})
        about = ", ".join(f"{name} = {value}" for name, value in settings.items())
        loss = case.factor * (last - now)
        told.append(StepLoss(technique=step.technique, about=about, validation=now, loss=loss))
        last = now
    case.bench.progress("measuring after each step", len(steps), len(steps))
    return tuple(told)


def _evidence(case: Case, found: Attempt, losses: Sequence[StepLoss]) -> Evidence:
    place = max(range(len(losses)), key=lambda count: losses[count].loss)
    step = found.steps[place]
    layers = _layers_of(case, found)
    if isinstance(step, Quantize):
        named = worst_first(layers)
    else:
        own = [change.layer for change in found.compressed.changes if change.what in _OUT]
        named = list(dict.fromkeys(own))
    return Evidence(place, layers, spare_each(case, found.steps, place, found, named), found.compressed.notes)


_OUT = frozenset({"out_channels", "out_features", "hidden_size", "num_heads"})
"""What a change says of a layer that lost neurons of its own, and did not follow another."""


def _layers_of(case: Case, tried: Attempt) -> tuple[LayerApart, ...]:
    if not isinstance(tried.steps[-1], Quantize | Qat):
        return ()
    before = network_after(case, tried.steps[:-1]) if len(tried.steps) > 1 else Compressed(case.task.model)
    return compare_layers(case, before, tried.compressed)


def _mend(
    case: Case, found: Attempt, evidence: Evidence, allowed: float
) -> tuple[Attempt, tuple[Trial, ...]]:
    """The best of what was tried: remedies in the order of their price, each on top of those that helped, and of those
    what is needed."""
    best, trials = found, []
    remedies = menu(found.steps, evidence.place)
    for done, remedy in enumerate(remedies):
        if case.loss(best.evaluation.value) <= allowed:
            break
        case.bench.progress("trying remedies", done, len(remedies))
        steps = remedy.edit(best.steps, evidence)
        if steps is None or steps == best.steps:
            continue
        trial, tried = _try(case, remedy, steps, best)
        trials.append(trial)
        if trial.kept and tried is not None:
            best = tried
    case.bench.progress("trying remedies", len(remedies), len(remedies))
    return only_needed(case, found, best, trials, remedies, evidence, allowed)


def _try(case: Case, remedy: Remedy, steps: Steps, best: Attempt) -> tuple[Trial, Attempt | None]:
    trial = Trial(
        remedy=remedy.name,
        cause=remedy.cause,
        about=remedy.about,
        changed=_changed(best.steps, steps),
    )
    try:
        tried = attempt(case, steps)
    except TinypressError as error:
        return trial.model_copy(update={"refused": str(error).splitlines()[0]}), None
    now = measures(case, tried)
    was = case.loss(best.evaluation.value)
    # on few samples many tries are equal in the metric: then the outputs decide, by a clear step
    kept = now["loss"] < was or (now["loss"] == was and now["snr_db"] > snr(case, best) + 1.0)
    return trial.model_copy(update={**now, "kept": kept, "seconds": tried.seconds}), tried


def _changed(before: Steps, after: Steps) -> str:
    """The settings that differ, in words."""
    said = []
    old = [step.model_dump(mode="json") for step in before]
    for step in (step.model_dump(mode="json") for step in after):
        if step in old:
            continue
        was = next((x for x in old if x["technique"] == step["technique"]), None)
        if was is None:
            said.append(f"new step {step['technique']!r}")
        else:
            said += [f"{name} = {value}" for name, value in step.items() if was.get(name) != value]
    return ", ".join(said)


def _outcome(case: Case, found: Attempt, candidate: Candidate) -> Outcome:
    """What the receipt says of the candidate: it was measured there, on test, once."""
    assert candidate.drop is not None
    value = found.evaluation.value
    return Outcome(
        artifact=candidate.artifact, validation=value, validation_loss=case.loss(value),
        quality=candidate.quality, drop=candidate.drop,
    )  # fmt: skip


def _measured(case: Case, best: Attempt, baseline: Opened, allowed: float) -> Outcome:
    again = attempt(case, best.steps, "mended")
    opened = open_artifact(again.path, case.shipment, case.task, case.metric, 1)
    name = f"artifacts/{again.path.name}"
    judged = judge_artifact(opened, baseline, name, case.task, case.metric, allowed, case.bench.seed)
    assert judged.drop is not None
    artifact = judged.artifact.model_copy(update={"bytes": judged.artifact.bytes + case.beside_bytes})
    return Outcome(
        artifact=artifact, validation=judged.validation.value,
        validation_loss=case.loss(judged.validation.value), quality=judged.quality, drop=judged.drop,
    )  # fmt: skip


def _signs(candidate: Candidate) -> bool | None:
    """How the candidate's file stores the weights of integer products; ``None`` where it has none to go by."""
    exact_on = candidate.equality.exact_on if candidate.equality is not None else ()
    return None if not exact_on else exact_on == DOT_PRODUCTS


def _write_recipe(case: Case, candidate: Candidate, best: Attempt, receipt: Receipt) -> None:
    recipe = Recipe(
        name=candidate.name.removesuffix(".archive").removesuffix(".onnx"),
        about=f"{candidate.about} (as the diagnosis left it)".strip(),
        steps=best.steps,
        ship=(case.shipment,),
        signed_weights=case.signed_weights,
    )
    file = {
        "task": receipt.task,
        "seed": receipt.seed,
        "threads": receipt.machine.threads,
        "tolerance": receipt.tolerance.value,
        "recipes": [recipe.model_dump(mode="json")],
    }
    write_json(case.folder.path / "recipe.json", file)
    for leftover in case.folder.artifacts.glob("try.*"):
        leftover.unlink()
