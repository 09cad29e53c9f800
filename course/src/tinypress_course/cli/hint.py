"""``tito hint``: a nudge, then an idea, then the steps in words; each after an attempt."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tinypress_course.attempts import read_attempts, with_hint, write_attempts
from tinypress_course.cli.test import chosen_functions
from tinypress_course.feedback import REFUSES
from tinypress_course.hints import STAGES, read_hints
from tinypress_course.module import MODULE, find_module, read_module, work_file
from tinypress_course.standing import stand

ONLY_REFUSALS = (
    "What it computes is right. What is left is bad input: look at the top of the function, before it computes "
    "anything. Ask there whether the input is what the description allows, and raise a ValueError whose text tells "
    "the value that was given. The hints are about the computing, so none is used up here."
)


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
    results = (stand(module, work_file(folder), [each])[0] for each in names)
    broken = next((result for result in results if not result.holds), None)
    if broken is None or broken.feedback is None:
        console.print(f"{function or 'Everything'} holds: there is nothing to hint at.", highlight=False)
        return 0
    name = broken.function
    unkept = broken.feedback.unkept if broken.written else ()
    if unkept:
        console.print(
            f"{name} does not keep: {'; '.join(unkept)}.", highlight=False, markup=False, soft_wrap=True
        )
    if unkept and all(promise.startswith(REFUSES) for promise in unkept):
        console.print(ONLY_REFUSALS, highlight=False, markup=False, soft_wrap=True)
        return 0
    attempts = read_attempts(folder)
    tried = attempts.of(name)
    hints = read_hints(MODULE)[name]
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
