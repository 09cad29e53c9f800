"""``tinypress verify``: measures a run's artifacts again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tinypress.cli.found import task_of
from tinypress.cli.options import AsJson, use_threads, watched
from tinypress.press.run_folder import read_receipt
from tinypress.press.seeds import SUMMARY, read_summary, verify_seeds
from tinypress.press.verify import verify as verify_run


def verify(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    task: Annotated[str | None, typer.Option(help="The task, where it is not a built-in one.")] = None,
    folder: Annotated[
        str | None, typer.Option(help="The Hugging Face folder that was pressed, with --task data.py.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Measure the artifacts of RUN again; exit 1 and name each field of the receipt that does not hold."""
    over_seeds = (run / SUMMARY).is_file()
    receipt = read_receipt(run / f"seed-{read_summary(run).seeds[0]}" if over_seeds else run)
    use_threads(receipt.machine.threads)
    with watched() as progress:
        named = task if task is not None else receipt.task
        spec, data = (named, None) if folder is None else (folder, task)
        found = task_of(spec, data, receipt.seed, progress)
        mismatches = (verify_seeds if over_seeds else verify_run)(run, found, progress)
    failed = [mismatch for mismatch in mismatches if not mismatch.tolerated]
    if as_json:
        rows = [
            {"field": m.field, "said": str(m.said), "found": str(m.found), "tolerated": m.tolerated}
            for m in mismatches
        ]
        print(json.dumps({"holds": not failed, "mismatches": rows}, indent=1))
        return 1 if failed else 0
    console = Console()
    if mismatches:
        table = Table("field", "the receipt says", "found", title="What does not hold")
        for mismatch in mismatches:
            table.add_row(mismatch.field, _short(mismatch.said), _short(mismatch.found))
        console.print(table)
    if failed:
        console.print(f"[bold red]The receipt does not hold[/]: {len(failed)} fields differ")
        return 1
    times = f" with each of {len(read_summary(run).seeds)} seeds" if over_seeds else ""
    console.print(f"The receipt holds: {len(receipt.candidates)} artifacts measured again{times}")
    return 0


def _short(value: object) -> str:
    text = str(value).replace("[", r"\[")
    return text if len(text) <= 60 else text[:57] + "..."
