"""``tito export``: the learner's functions as a package of their own."""

from __future__ import annotations

from rich.console import Console

from tinypress_course.cells import definitions, read_cells
from tinypress_course.cli.options import ModuleName, bars
from tinypress_course.export import PACKAGE, sha256_of, write_package
from tinypress_course.module import find_module, read_module, work_file
from tinypress_course.standing import stand


def export(module: ModuleName = None) -> int:
    """Write your functions as the package my_compression. What is not written yet is left out, and said."""
    folder = find_module(module)
    facts = read_module(folder)
    work = work_file(folder)
    with bars() as show:
        total = len(facts.functions)
        results = stand(facts, work, note=lambda name: show("test", name, facts.functions.index(name), total))
    missing = [result.function for result in results if not result.written]
    broken = [result.function for result in results if result.written and not result.holds]
    root = write_package(folder, facts, definitions(read_cells(work)), sha256_of(work), missing)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{root} holds {len(results) - len(missing)} functions and the engine that they make.")
    if broken:
        console.print(f"Exported as they are, though they do not hold yet: {', '.join(broken)}.")
    if missing:
        console.print(f"Not written, so the toolkit's own take their place: {', '.join(missing)}.")
    console.print("\n  tito run                     [dim]# your engine on the real network[/]")
    console.print(f"  pip install -e {PACKAGE}  [dim]# then: from my_compression import ENGINE[/]")
    return 0
