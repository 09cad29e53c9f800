"""``tito doctor``: is everything there that a module builds on?"""

from __future__ import annotations

from importlib.resources import as_file

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinypress_course.cli.options import bars
from tinypress_course.cli.start import EXERCISES
from tinypress_course.doctor import try_all
from tinypress_course.module import read_module


def doctor(module: str = "10_compression") -> int:
    """Try each thing that MODULE builds on; the first time, the watch network is trained, in seconds."""
    with as_file(EXERCISES / module) as folder:
        facts = read_module(folder)
    total = len(facts.prerequisites)
    with bars() as show:
        show("doctor", facts.prerequisites[0].name, 0, total)
        results = []
        for done, tried in enumerate(try_all(facts), 1):
            results.append(tried)
            show("doctor", tried.name, done, total)
    table = Table(title=f"What {facts.title} builds on", title_justify="left")
    for name in ("", "module", "used for", "tried"):
        table.add_column(name)
    for tried in results:
        sign = "[green]✓[/]" if tried.there else "[red]✗[/]"
        table.add_row(sign, tried.name, tried.used_for, Text(tried.seen, style="" if tried.there else "red"))
    console = Console()
    console.print(table)
    missing = [tried.name for tried in results if not tried.there]
    if missing:
        console.print(
            f"Not there: {', '.join(missing)}. The last column says what is wrong.", highlight=False
        )
        return 1
    console.print("Everything is there. Begin with: tito start " + module, highlight=False)
    return 0
