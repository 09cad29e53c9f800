"""``tinypress tasks``: what is built in."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from tinypress.cli.options import AsJson
from tinypress.tasks.find import BUILT_IN


def tasks(as_json: AsJson = False) -> int:
    """List the built-in tasks."""
    if as_json:
        print(json.dumps([{"name": name, "about": about} for name, _, about in BUILT_IN], indent=1))
        return 0
    table = Table("task", "what it is")
    for name, _, about in BUILT_IN:
        table.add_row(name, about)
    Console().print(table)
    Console().print("Your own: tinypress new task.py")
    return 0
