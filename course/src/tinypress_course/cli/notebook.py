"""``tito notebook``: the module's script as a Jupyter notebook, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinypress_course.errors import CourseError
from tinypress_course.files import write_text
from tinypress_course.module import SOURCE, find_module
from tinypress_course.notebook import notebook_text, read_notebook, script_text


def notebook(
    folder: Annotated[
        Path | None, typer.Argument(help="The module's folder \\[default: this one].", metavar="MODULE")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write \\[default: beside the other].")
    ] = None,
    to_script: Annotated[
        bool, typer.Option("--to-script", help="Write the notebook's cells as a script.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also over a file that was changed later.")] = False,
) -> int:
    """Write the module's script as a Jupyter notebook; with --to-script, the notebook as the script."""
    module = folder if folder is not None else find_module()
    script = module / SOURCE
    made_from, beside = script, script.with_suffix(".ipynb")
    if to_script:
        made_from, beside = beside, script
    target = out if out is not None else beside
    as_text = script_text if to_script else notebook_text
    text = as_text(read_notebook(made_from))
    console = Console()
    if target.exists() and (
        not target.is_file() or target.suffix != beside.suffix or target.samefile(made_from)
    ):
        raise CourseError(
            f"tito notebook --out {target}: that is no {beside.suffix} file, and stays. Give another name"
        )
    if target.exists() and target.read_bytes() == text.encode():
        console.print(
            f"{target} is what {made_from.name} says already.", markup=False, highlight=False, soft_wrap=True
        )
        return 0
    if target.exists() and not force and target.stat().st_mtime > made_from.stat().st_mtime:
        raise CourseError(
            f"tito notebook: {target} was changed after {made_from.name}, and would be lost. Take it as it is, "
            "write elsewhere with --out FILE, or over it with --force"
        )
    write_text(target, text)
    goes_on = " tito goes on with whichever of the two was changed later." if target == beside else ""
    console.print(
        f"{target} holds the cells of {made_from.name}.{goes_on}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0
