"""``tito grade``: a folder of submissions, and a gradebook."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinypress_course.cells import read_cells
from tinypress_course.cli.options import bars
from tinypress_course.errors import CourseError
from tinypress_course.grade.gradebook import NOT_MARKED, Row, Run, as_data, rows_of, write_gradebook
from tinypress_course.grade.grading import MOST_SEED, choose_seed, grade_all, make_plan
from tinypress_course.grade.likeness import like_each_other, like_toolkit, toolkit_prints
from tinypress_course.grade.rubric import RUBRIC, read_rubric
from tinypress_course.grade.sandbox import ABOUT, STRONGEST_FIRST, Kind, open_sandbox
from tinypress_course.grade.submission import ignored_marks, read_marks, read_submissions
from tinypress_course.module import SOURCE, read_module
from tinypress_course.standing import points_of

_SHIPPED = "10_compression"


def grade(
    folder: Annotated[
        Path, typer.Argument(help="The folder with NAME.zip or NAME/ of each learner.", metavar="FOLDER")
    ],
    module: Annotated[
        Path | None,
        typer.Option("--module", help=r"The module's folder \[default: the exercise that tito ships]."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help=r"Where to write \[default: FOLDER-graded].")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help=r"Of inputs and budget \[default: drawn, and kept with the run].", min=0, max=MOST_SEED
        ),
    ] = None,
    rubric: Annotated[
        Path | None, typer.Option(help=r"A rubric of your own \[default: the course's].")
    ] = None,
    isolation: Annotated[
        str | None, typer.Option(help=rf"One of {', '.join(STRONGEST_FIRST)} \[default: the strongest here].")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run submissions that you have read where there is no isolation.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Learners at a time.", min=1, max=64)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the gradebook as JSON.")] = False,
) -> int:
    """Grade the submissions in FOLDER: in a sandbox, with inputs nobody has seen, by the rubric.

    Writes gradebook.csv, gradebook.html and gradebook.json. Your own marks are read from FOLDER/marks.csv, with
    the columns learner,mark and marks from 0 to 1. Stopped with Ctrl-C, the same command goes on.
    """
    source = module if module is not None else shipped_module()
    facts, points = read_module(source), points_of(read_cells(source / SOURCE))
    missing = [function for function in facts.functions if function not in points]
    if missing:
        raise CourseError(
            f"{source / SOURCE} has no test cell for {', '.join(missing)}. Give the whole module"
        )
    rules, marks = read_rubric(rubric if rubric is not None else RUBRIC), read_marks(folder)
    submissions = read_submissions(folder, source.resolve().name)
    target = out if out is not None else folder.resolve().with_name(f"{folder.resolve().name}-graded")
    chosen = choose_seed(target, seed)
    with bars() as show:
        show("class", "opening the sandbox", 0, len(submissions))
        with open_sandbox(kind_called(isolation), trust=trust) as sandbox:
            plan = make_plan(source, target, chosen, rules, sandbox)
            grades = grade_all(submissions, plan, jobs, show)
    prints = {each.learner: {name: frozenset(p) for name, p in each.prints.items()} for each in grades}
    toolkit = toolkit_prints(rules.likeness)
    alike = [
        one for learner, own in prints.items() for one in like_toolkit(learner, own, toolkit, rules.likeness)
    ]
    alike += like_each_other(prints, rules.likeness)
    rows = rows_of(grades, marks, alike, rules)
    run = Run(
        module=source.resolve().name,
        seed=chosen,
        isolation=sandbox.kind,
        budget_bytes=max((each.applied.budget_bytes for each in grades), default=0),
        ignored_marks=ignored_marks(marks, [each.learner for each in grades]),
    )
    write_gradebook(target, rows, run, rules)
    if as_json:
        print(json.dumps(as_data(rows, run), indent=1))
    else:
        _show(rows, run, target)
    return 0


def shipped_module() -> Path:
    """The folder of the exercise in the installed course.

    Raises:
        CourseError: this installation has none.
    """
    folder = Path(str(files("tinypress_course"))) / "exercise" / _SHIPPED
    if not (folder / SOURCE).exists():
        raise CourseError("this installation ships no exercise. Give the module's folder with --module")
    return folder


def kind_called(name: str | None) -> Kind | None:
    """The kind of isolation with this name.

    Raises:
        CourseError: there is no such kind.
    """
    for kind in STRONGEST_FIRST:
        if name == kind:
            return kind
    if name is None:
        return None
    raise CourseError(f"tito grade --isolation {name!r}: give one of {', '.join(STRONGEST_FIRST)}")


def _show(rows: list[Row], run: Run, target: Path) -> None:
    table = Table(title=f"{run.module}: {len(rows)} submissions", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("learner")
    for name in ("automatic", "technical", "trade-offs", "application", "total"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        parts = (row.grade.automatic, row.grade.technical, row.tradeoffs, row.grade.applied.points)
        numbers = [f"{part:.1f}" for part in parts]
        table.add_row(_plain(row.grade.learner), *numbers, f"{row.total:.1f} of {row.of:g}")
    console = Console()
    console.print(table)
    for row in rows:
        look = "; ".join(flag for flag in row.flags if flag != NOT_MARKED)
        if look:
            console.print(_plain(f"{row.grade.learner}: {look}"), soft_wrap=True)
    console.print(
        f"Isolation: {ABOUT[run.isolation]}. Seed {run.seed}.\n{target / 'gradebook.html'}\n{target / 'gradebook.csv'}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _plain(text: str) -> Text:
    """Text that neither styles nor steers the terminal."""
    return Text("".join(c if c.isprintable() else " " for c in text))
