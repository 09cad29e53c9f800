"""What several commands share: arguments and the bars of work that takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ModuleName = Annotated[
    str | None, typer.Argument(help="The module \\[default: the one in this folder].", metavar="MODULE")
]
Show = Callable[[str, str, int, int], None]


@contextmanager
def bars() -> Iterator[Show]:
    """Bars on standard error with the time left; ``show(row, what, done, total)`` moves the one called ``row``."""
    columns = (
        TextColumn("{task.description:<40}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        rows: dict[str, int] = {}

        def show(row: str, what: str, done: int, total: int) -> None:
            if row not in rows:
                rows[row] = progress.add_task(what, total=total)
            progress.update(rows[row], description=what, completed=done, total=total)  # type: ignore[arg-type]

        yield show
