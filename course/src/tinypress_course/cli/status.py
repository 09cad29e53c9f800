"""``tito status``: a map of the steps, the functions in them, and the points."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tinypress_course.attempts import read_attempts
from tinypress_course.cli.options import ModuleName, bars
from tinypress_course.cli.test import mark
from tinypress_course.journal import Journal, read_journal
from tinypress_course.module import JOURNAL, Module, find_module, read_module, work_file
from tinypress_course.standing import Result, stand


def status(module: ModuleName = None) -> int:
    """Show the map: what holds, what is still to be written, guesses and claims, and the points so far."""
    folder = find_module(module)
    facts = read_module(folder)
    with bars() as show:
        total = len(facts.functions)
        results = stand(
            facts,
            work_file(folder),
            note=lambda name: show("test", name, facts.functions.index(name), total),
        )
    Console().print(table_of(facts, results, folder))
    return 0


def table_of(module: Module, results: list[Result], folder: Path) -> Table:
    """A section for each step: its functions, then how many guesses, measurements and claims were written down."""
    attempts, journal = read_attempts(folder), read_journal(folder / JOURNAL)
    held = sum(result.points for result in results if result.holds)
    possible = sum(result.points for result in results)
    table = Table(title=module.title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    table.caption = (
        f"{held:g} of {possible:g} automatic points, by the promises you can see. The grade asks a few more."
    )
    for name in ("", "points", "tries", "hints"):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name), min_width=len(name))
    for step in module.steps:
        table.add_section()
        of_step = [result for result in results if result.step == step.number]
        got = sum(result.points for result in of_step if result.holds)
        table.add_row(
            f"[bold]Step {step.number}[/] {step.title}",
            f"[bold]{got:g}/{sum(result.points for result in of_step):g}[/]",
        )
        for result in of_step:
            tried = attempts.of(result.function)
            table.add_row(
                f"  {mark(result)} {result.function}",
                f"{result.points if result.holds else 0:g}/{result.points:g}",
                str(tried.attempts or ""),
                str(tried.hints or ""),
            )
        table.add_row(f"  [dim]{written_down(journal, step.number)}[/]")
    return table


def written_down(journal: Journal, step: int) -> str:
    """What the journal holds of a step, in words."""
    kinds = (("prediction", "guesses"), ("measurement", "measurements"), ("claim", "claims"))
    counts = {
        word: len({e.name for e in journal.entries if e.step == step and e.kind == kind})
        for kind, word in kinds
    }
    return "in the journal: " + ", ".join(f"{count or 'no'} {word}" for word, count in counts.items())
