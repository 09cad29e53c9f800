"""``tito start``: the exercise into a folder of the learner's own."""

from __future__ import annotations

import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinypress_course.errors import CourseError
from tinypress_course.files import write_bytes
from tinypress_course.module import read_module

EXERCISES = files("tinypress_course") / "exercise"


def start(
    module: Annotated[str, typer.Argument(help="Which module, such as 10_compression.")],
    into: Annotated[
        Path, typer.Option("--into", help="The folder in which the module's folder is made.")
    ] = Path(),
) -> int:
    """Write the exercise of MODULE into a folder of that name."""
    names = sorted(each.name for each in EXERCISES.iterdir() if each.is_dir())
    if module not in names:
        raise CourseError(f"tito start {module}: there is no such module. There is: {', '.join(names)}")
    target = into / module
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CourseError(
            f"tito start {module}: {target} is not empty, and nothing is written over your work. "
            "Go on in it, or begin elsewhere with --into FOLDER"
        )
    into.mkdir(parents=True, exist_ok=True)
    with (
        as_file(EXERCISES / module) as source,
        tempfile.TemporaryDirectory(dir=into, prefix=f".{module}.") as beside,
    ):
        for each in sorted(source.rglob("*")):
            if each.is_file() and "__pycache__" not in each.parts:
                write_bytes(Path(beside) / module / each.relative_to(source), each.read_bytes())
        if target.exists():
            target.rmdir()
        (Path(beside) / module).rename(target)
    facts = read_module(target)
    console = Console(soft_wrap=True)
    console.print(
        f"[bold]{facts.title}[/]: {len(facts.functions)} functions in {len(facts.steps)} steps, "
        f"about {facts.time_hours:g} hours.\n"
    )
    console.print(
        f"The exercise is {target / 'compression_dev.py'}; README.md beside it says how to work. Next:\n",
        highlight=False,
    )
    console.print(f"  cd {target}", highlight=False)
    console.print("  tito test --step 1     [dim]# what is to be written[/]")
    return 0
