"""``tito lint``: the author's linter."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinypress_course.lint.all import findings_in
from tinypress_course.module import find_module


def lint(
    folder: Annotated[
        Path | None, typer.Argument(help="The module's folder \\[default: this one].", metavar="MODULE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Look at a module's source as its author should, and say what to mend."""
    module = folder if folder is not None else find_module()
    findings = findings_in(module)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return 1 if findings else 0
    console = Console()
    for finding in findings:
        console.print(
            f"{module / finding.file}".removesuffix(finding.file) + str(finding),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{len(findings)} findings in {module}." if findings else f"{module}: nothing to mend.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 1 if findings else 0
