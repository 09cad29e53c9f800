"""``tinypress diagnose``: why a candidate of a run loses quality, and a recipe that loses less."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinypress.cli.found import task_of
from tinypress.cli.options import AsJson, Fresh, Tolerance, use_threads, watched
from tinypress.plan.diagnose import diagnose as diagnose_run
from tinypress.press.run_folder import read_receipt
from tinypress.report.diagnosis_page import write_diagnosis_page
from tinypress.report.diagnosis_table import outcome_text, story_text, trials_table


def diagnose(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    candidate: Annotated[
        str | None, typer.Option(help="The candidate \\[default: the chosen one, else the smallest].")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task, where it is not a built-in one.")] = None,
    folder: Annotated[
        str | None, typer.Option(help="The Hugging Face folder that was pressed, with --task data.py.")
    ] = None,
    tolerance: Tolerance = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> int:
    """Find the step and the layer that cost a candidate of RUN its quality, and try remedies, the cheapest first.

    It ends with the first that brings the loss on validation within the tolerance, and exits with 1 where none does.
    """
    receipt = read_receipt(run)
    use_threads(receipt.machine.threads)
    with watched() as progress:
        named = task if task is not None else receipt.task
        spec, data = (named, None) if folder is None else (folder, task)
        found = task_of(spec, data, receipt.seed, progress)
        diagnosis = diagnose_run(
            run, found, candidate=candidate, tolerance=tolerance, fresh=fresh, progress=progress
        )
    place = run / "diagnosis" / diagnosis.candidate
    write_diagnosis_page(diagnosis, place / "report.html")
    if as_json:
        print(diagnosis.model_dump_json(indent=1))
        return 0 if diagnosis.mended else 1
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)  # a pipe or a log has no width of its own
    console.print(story_text(diagnosis))
    if diagnosis.trials:
        console.print(trials_table(diagnosis))
    console.print(outcome_text(diagnosis))
    own = named if folder is None else f"{folder} --task {task}"
    console.print(f"The page is {place / 'report.html'}", soft_wrap=True)
    console.print(f"Make it again: tinypress press {own} --recipe {place / 'recipe.json'}", soft_wrap=True)
    return 0 if diagnosis.mended else 1
