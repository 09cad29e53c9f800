"""``tito test``: what holds, what does not yet, and what it looks like."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from watchfiles import watch as changes

from tinypress_course.cli.options import bars
from tinypress_course.errors import CourseError
from tinypress_course.feedback import as_text
from tinypress_course.module import Module, find_module, read_module, work_file
from tinypress_course.standing import Result, stand


def test(
    functions: Annotated[list[str] | None, typer.Argument(help="Functions \\[default: all].")] = None,
    step: Annotated[int | None, typer.Option("--step", help="Only the functions of this step.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Test again whenever the file is saved.")] = False,
) -> int:
    """Try every promise of your functions; say which mistake it looks like where one is broken."""
    folder = find_module()
    module = read_module(folder)
    chosen = chosen_functions(module, functions or [], step)
    console = Console()
    code = _once(folder, module, chosen, console)
    if not watch:
        return code
    console.print("[dim]watching the file; Ctrl-C ends[/]")
    for _ in changes(folder, watch_filter=lambda _, path: Path(path) == work_file(folder)):
        console.clear()
        code = _once(folder, module, chosen, console)
        console.print("[dim]watching the file; Ctrl-C ends[/]")
    return code


def chosen_functions(module: Module, functions: list[str], step: int | None) -> list[str]:
    """The functions that were asked for, in the order of the module.

    Raises:
        CourseError: there is no such step or function.
    """
    numbers = [each.number for each in module.steps]
    if step is not None and step not in numbers:
        raise CourseError(f"tito test --step {step}: there are the steps {numbers[0]} to {numbers[-1]}")
    for name in functions:
        if name not in module.functions:
            raise CourseError(f"tito test {name}: the module has no such function. {_nearest(name, module)}")
    return [
        name
        for name in module.functions
        if (not functions or name in functions) and step in (None, module.step_of(name).number)
    ]


def _nearest(name: str, module: Module) -> str:
    near = difflib.get_close_matches(name, module.functions, n=1, cutoff=0.4)
    return f"Do you mean {near[0]}?" if near else f"It has {', '.join(module.functions)}"


def _once(folder: Path, module: Module, functions: list[str], console: Console) -> int:
    work = work_file(folder)
    try:
        with bars() as show:
            numbered = {name: number for number, name in enumerate(functions)}
            results = stand(
                module, work, functions, lambda name: show("test", name, numbered[name], len(functions))
            )
    except CourseError as error:
        console.print(Text(str(error)))
        return 1
    show_results(module, results, console)
    return 0 if all(result.holds for result in results) else 1


def show_results(module: Module, results: list[Result], console: Console) -> None:
    """A line for each function, then the feedback on what was written and does not hold."""
    for step in module.steps:
        of_step = [result for result in results if result.step == step.number]
        if of_step:
            console.print(f"\n[bold]Step {step.number}[/] {step.title}")
        for result in of_step:
            console.print(f"  {mark(result)} {result.function}", highlight=False)
    for result in results:
        if result.feedback is not None and result.written:
            console.print()
            console.print(Text(as_text(result.feedback)), soft_wrap=True)
    held = sum(result.holds for result in results)
    console.print(f"\n{held} of {len(results)} functions keep every promise.", highlight=False)
    broken = next((result for result in results if not result.holds), None)
    if broken is not None and broken.written:
        console.print(f"[dim]Stuck? tito hint {broken.function}[/]", highlight=False)
    elif broken is not None:
        console.print(f"[dim]Next: write {broken.function}[/]", highlight=False)


def mark(result: Result) -> str:
    """One sign and one word for how a function stands."""
    if result.holds:
        return "[green]✓ holds  [/]"
    return "[red]✗ not yet[/]" if result.written else "[dim]· to write[/]"
