"""``tito release``: the exercise, built from the one source and audited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinypress_course.module import read_module
from tinypress_course.release import release_module


def release(
    source: Annotated[
        Path, typer.Argument(help="The module's folder, with the solutions.", metavar="SOURCE")
    ],
    out: Annotated[Path, typer.Argument(help="A new or empty folder for the exercise.", metavar="OUT")],
) -> int:
    """Build the exercise without solutions and hidden tests, and audit it; nothing is written where something leaks."""
    findings = release_module(source, out)
    console = Console()
    for finding in findings:
        console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    if findings:
        console.print(f"Nothing was written to {out}.", markup=False, highlight=False, soft_wrap=True)
        return 1
    count = len(read_module(source).functions)
    console.print(
        f"{out} holds the exercise: no line of a solution, each of the {count} functions fails unsolved and passes "
        "solved.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0
