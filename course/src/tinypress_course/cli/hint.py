"""``tito hint``: a nudge, then an idea, then the steps in words; each after an attempt."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tinypress_course.attempts import read_attempts, with_hint, write_attempts
from tinypress_course.cli.test import chosen_functions
from tinypress_course.hints import STAGES, read_hints
from tinypress_course.module import find_module, read_module, work_file
from tinypress_course.standing import stand


def hint(
    function: Annotated[
        str | None, typer.Argument(help="For which function \\[default: the first that does not hold].")
    ] = None,
) -> int:
    """Show the next hint for FUNCTION. One opens with each attempt: change it, run tito test, ask again."""
    folder = find_module()
    module = read_module(folder)
    names = chosen_functions(module, [function] if function else [], None)
    console = Console()
    name = next((each for each in names if not stand(module, work_file(folder), [each])[0].holds), None)
    if name is None:
        console.print(f"{function or 'Everything'} holds: there is nothing to hint at.", highlight=False)
        return 0
    attempts = read_attempts(folder)
    tried = attempts.of(name)
    hints = read_hints(folder.name)[name]
    opens = tried.hints < len(hints) and tried.attempts > tried.attempts_at_last_hint
    if opens:
        attempts = with_hint(attempts, name)
        write_attempts(folder, attempts)
    shown = attempts.of(name).hints
    if not shown:
        console.print(
            f"{name} is not written yet. Write what you think, however wrong; then ask again.",
            highlight=False,
        )
        return 0
    for stage, text in list(zip(STAGES, hints, strict=True))[:shown]:
        console.print(f"[bold]{name}, {stage}[/]", highlight=False)
        console.print(Text(text.strip()), soft_wrap=True)
    if shown < len(hints):
        console.print(
            f"[dim]{len(hints) - shown} more; the next opens when you have changed {name} and it was tested.[/]",
            highlight=False,
        )
    return 0
