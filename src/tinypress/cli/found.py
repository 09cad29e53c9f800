"""The task that a command works on: one by name or file, or a Hugging Face folder with the user's data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tinypress.errors import TaskError, TinypressError
from tinypress.huggingface import read_pretrained
from tinypress.task import Task
from tinypress.tasks.find import find_attribute, find_task
from tinypress.train.loop import Progress


def task_of(spec: str, data: str | None, seed: int, progress: Progress) -> Task:
    """The task called ``spec``; where that is a folder, the one that ``data`` makes of its network and tokenizer.

    ``data`` is ``file.py``, ``file.py:attribute`` or ``module:attribute``, a function ``task(model, tokenizer)`` that
    returns a ``Task``. What ships is then the network with its config and its tokenizer.

    Raises:
        TaskError: the folder comes without data, or data without a folder, or the function fails.
        ArtifactError, ModelError, MissingExtra: the folder cannot be used.
    """
    folder = Path(spec)
    if not folder.is_dir():
        if data is not None and ("/" in spec or folder.exists()):
            raise TaskError(f"folder {spec!r}", "there is no such folder", "Check the path")
        if data is not None:
            raise TaskError(
                f"task {spec!r} with --task {data}", "--task goes with a Hugging Face folder", "Leave it out"
            )
        return find_task(spec, seed, progress)
    call = f"folder {folder.name!r}"
    if data is None:
        raise TaskError(
            call,
            "a folder has a network and no data to judge it by",
            "Give --task data.py; `tinypress new --huggingface data.py` writes one",
        )
    function = find_attribute(data)
    if not callable(function):
        raise TaskError(
            f"--task {data}",
            f"it is a {type(function).__name__}, not a function task(model, tokenizer)",
            "See `tinypress new --huggingface data.py`",
        )
    pretrained = read_pretrained(folder)
    try:
        found = function(pretrained.model, pretrained.tokenizer)
    except TinypressError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"--task {data} on {call}", f"its function failed: {type(error).__name__}: {error}", "Mend it"
        ) from error
    if not isinstance(found, Task):
        raise TaskError(f"--task {data}", f"it returned a {type(found).__name__}", "Return a tinypress.Task")
    return found if found.companions is not None else replace(found, companions=pretrained.companions)
