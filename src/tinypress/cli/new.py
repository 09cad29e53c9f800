"""``tinypress new``: a starting file for one's own task."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinypress.errors import InputError
from tinypress.files import write_bytes


def new(
    path: Annotated[Path, typer.Argument(help="The file to write, such as task.py.")],
    huggingface: Annotated[
        bool, typer.Option("--huggingface", help="For the network of a Hugging Face folder: the data alone.")
    ] = False,
) -> int:
    """Write a commented task file that runs as it stands; put your network and data in."""
    call = f"tinypress new {path.name}"
    if path.suffix != ".py":
        raise InputError(call, "the name does not end in .py", "Give a Python file name, such as task.py")
    if path.exists():
        raise InputError(call, "the file exists already", "Choose another name")
    template = "template_huggingface.txt" if huggingface else "template.txt"
    text = (files("tinypress.cli") / template).read_text(encoding="utf-8")
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in path.stem)
    write_bytes(path, text.replace("{file}", path.name).replace("{name}", name).encode())
    command = f"tinypress press FOLDER --task {path}" if huggingface else f"tinypress compare {path}"
    Console().print(f"Wrote {path}. It runs as it stands: {command}", soft_wrap=True)
    return 0
