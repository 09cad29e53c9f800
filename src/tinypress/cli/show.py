"""Prints a receipt: as a table with its findings and the page's place, or as JSON."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tinypress.receipt import Receipt
from tinypress.report import findings_text, summary_table, write_page


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
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)  # a pipe or a log has no width of its own
    console.print(summary_table(receipt))
    console.print(findings_text(receipt))
    console.print(f"\nThe files that ship are in {folder / 'artifacts'}, the page is {page}", soft_wrap=True)
    own = f" --task {task}" if task is not None and task != receipt.task else ""
    if data is not None:
        own = f" --folder {task} --task {data}"
    console.print(f"Check it: tinypress verify {folder}{own}", soft_wrap=True)
