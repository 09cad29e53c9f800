"""Prints a receipt, or a summary over seeds: as tables with the page's place, or as JSON."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tinypress.press.run_folder import read_receipt
from tinypress.receipt import Receipt
from tinypress.report import (
    advice,
    findings_text,
    pairs_table,
    seeds_table,
    summary_table,
    write_page,
    write_seeds_page,
)
from tinypress.summary import SeedSummary


def show_receipt(
    receipt: Receipt, folder: Path, as_json: bool, task: str | None = None, data: str | None = None
) -> None:
    """Write the run's page and print the receipt; ``task`` is how the user named it, a folder
    where it comes with ``data``."""
    page = folder / "report.html"
    write_page(receipt, page)
    if as_json:
        print(receipt.model_dump_json(indent=1))
        return
    console = _console()
    console.print(summary_table(receipt))
    console.print(findings_text(receipt))
    console.print(f"\nThe files that ship are in {folder / 'artifacts'}, the page is {page}", soft_wrap=True)
    console.print(f"Check it: tinypress verify {folder}{_named(receipt.task, task, data)}", soft_wrap=True)


def show_summary(
    summary: SeedSummary, folder: Path, as_json: bool, task: str | None = None, data: str | None = None
) -> int:
    """Write the pages of all runs and of the summary over seeds, print it, and return the command's exit code."""
    for seed in summary.seeds:
        run = folder / f"seed-{seed}"
        write_page(read_receipt(run), run / "report.html")
    page = folder / "report.html"
    write_seeds_page(summary, page)
    if as_json:
        print(summary.model_dump_json(indent=1))
        return 0
    console = _console()
    console.print(seeds_table(summary))
    if summary.pairs:
        console.print(pairs_table(summary))
    for line in advice(summary):
        console.print(f"• {line}", highlight=False, markup=False)
    console.print(f"\nThe runs are in {folder}/seed-N, the page is {page}", soft_wrap=True)
    console.print(f"Check it: tinypress verify {folder}{_named(summary.task, task, data)}", soft_wrap=True)
    return 0


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=100)  # a pipe or a log has no width of its own


def _named(own: str, task: str | None, data: str | None) -> str:
    """The options by which ``verify`` finds the task again."""
    if data is not None:
        return f" --folder {task} --task {data}"
    return f" --task {task}" if task is not None and task != own else ""
