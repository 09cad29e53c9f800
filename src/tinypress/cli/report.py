"""``tinypress report``: the page of a finished run, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinypress.cli.options import AsJson
from tinypress.cli.show import show_receipt, show_summary
from tinypress.press.run_folder import read_receipt
from tinypress.press.seeds import SUMMARY, read_summary
from tinypress.report import draw_summary


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    picture: Annotated[
        Path | None, typer.Option(help="Also draw quality against bytes into this PNG.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Write the page of RUN from its receipt, and print the receipt."""
    if (run / SUMMARY).is_file():
        return show_summary(read_summary(run), run, as_json)
    receipt = read_receipt(run)
    show_receipt(receipt, run, as_json)
    if picture is not None:
        draw_summary(receipt, picture)
    return 0
