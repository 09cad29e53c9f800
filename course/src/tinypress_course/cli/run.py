"""``tito run``: the learner's own engine on the real network, beside the toolkit's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinypress import find_task
from tinypress_course.cli.options import ModuleName, bars
from tinypress_course.export import load_package, sha256_of
from tinypress_course.module import find_module, work_file
from tinypress_course.run.beside import GOOD, WORDS, Beside, beside
from tinypress_course.run.both import press_both
from tinypress_course.run.compared import Compared, compared
from tinypress_course.run.networks import given_by
from tinypress_course.run.page import write_page
from tinypress_course.run.timing import times_of


def run(
    module: ModuleName = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run \\[default: runs/beside].")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Press your side again from the beginning.")] = False,
    controls: Annotated[
        bool, typer.Option("--controls", help="Press the controls as well; takes longer.")
    ] = False,
) -> int:
    """Press the watch network with your exported functions and with the toolkit's; show where they differ.

    Exits with 1 where a function differs or fails. A run that was stopped goes on with the same command.
    """
    folder = find_module(module)
    out = out if out is not None else folder / "runs" / "beside"
    exported = load_package(folder)
    stale = sha256_of(work_file(folder)) != exported.source_sha256
    torch.set_num_threads(1)
    Console(stderr=True).print("Pressing with your engine and with the toolkit's: a few minutes.")
    with bars() as show:
        given = given_by(find_task("watch"))
        functions: list[Beside] = []
        for each in beside(exported.functions, exported.not_written, given):
            functions.append(each)
            show("functions", "function by function", len(functions), 14)
        both = press_both(folder, out, fresh=fresh, controls=controls, show=show)
    done = compared(tuple(functions), both, times_of(out, given.batch[:1]))
    write_page(out / "page.html", done, stale=stale)
    for side in ("mine", "reference"):
        subprocess.run(
            [sys.executable, "-m", "tinypress", "report", str(out / side), "--json"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    _show(done, stale, out)
    return 1 if _differs(done) else 0


def _differs(done: Compared) -> bool:
    return any(each.verdict in ("differs", "fails") for each in done.functions)


def _show(done: Compared, stale: bool, out: Path) -> None:
    console = Console(highlight=False)
    wrong = [each for each in done.functions if each.verdict not in GOOD]
    for each in wrong:
        console.print(Text(f"{each.function}: {WORDS[each.verdict]}. {each.where}".strip()))
    table = Table(title="watch: your files, their kB and accuracy", title_justify="left")
    for name in ("file", "kB", "its kB", "%", "its %", "beside the toolkit's"):
        left = name in ("file", "beside the toolkit's")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "beside the toolkit's")
    for row in done.rows:
        mine = ("–", "–") if row.mine is None else (f"{row.mine.kilobytes:.1f}", f"{row.mine.accuracy:.1f}")
        says = Text(row.says, style="green" if row.same else "yellow" if done.agrees else "red")
        table.add_row(
            row.name,
            mine[0],
            f"{row.reference.kilobytes:.1f}",
            mine[1],
            f"{row.reference.accuracy:.1f}",
            says,
        )
    console.print(table)
    console.print(Text(done.headline))
    if stale:
        console.print("[red]The module was changed after it was exported: tito export, then tito run.[/]")
    console.print(f"The page: {out / 'page.html'}", soft_wrap=True)
