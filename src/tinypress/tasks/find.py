"""Finds a task by name, file or ``module:attribute``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from tinypress.errors import TaskError
from tinypress.task import Task
from tinypress.tasks import crepe, digits, efficientnet, minilm, minilm_taught, watch, watch_transformer
from tinypress.train.loop import Progress, silent

BUILT_IN: tuple[tuple[str, Callable[[int, Progress], Task], str], ...] = (
    ("watch", watch.load, "seven exercises from smartwatch motion, 1-D CNN, split by subject"),
    ("digits", digits.load, "handwritten digits, 2-D CNN with batch norm and a residual block"),
    ("watch-transformer", watch_transformer.load, "the data of watch, small transformer of four layers"),
    # these read packages of requirements/pretrained.txt
    ("crepe-full", crepe.load_full, "pitch of a tone in noise, pretrained 1-D CNN of 22 million weights"),
    ("crepe-noisy", crepe.load_noisy, "the same in noise in which it is clearly better than crepe-tiny"),
    ("crepe-tiny", crepe.load_tiny, "pitch with the pretrained CNN of half a million weights"),
    ("efficientnet-lite0", efficientnet.load, "what is in a photo, pretrained depthwise CNN, 1,000 classes"),
    ("minilm", minilm.load, "words by their definition, pretrained sentence encoder of six layers"),
    ("minilm-taught", minilm_taught.load, "the same with unlabelled text, from which a student is taught"),
    (
        "minilm-films",
        minilm.load_films,
        "the same encoder with a linear layer: sentences on films, liked or not",
    ),
    ("minilm-mail", minilm.load_mail, "the same for mail, wanted or spam"),
    ("minilm-wordsim", minilm.load_wordsim, "the same encoder on pairs of words, WordSim-353"),
    ("minilm-simlex", minilm.load_simlex, "the same, SimLex-999"),
)


def find_task(spec: str, seed: int = 0, progress: Progress = silent) -> Task:
    """The task called ``spec``: a built-in name, ``file.py``, ``file.py:attribute`` or ``module:attribute``.

    The attribute (by default ``task``) is a ``Task`` or a function that returns one. The file is executed: it
    is the user's own code.

    Raises:
        TaskError: there is no such task, its code fails, or it gives something else.
    """
    call = f"find_task({spec!r})"
    for name, load, _ in BUILT_IN:
        if spec == name:
            return load(seed, progress)
    found = find_attribute(spec)
    if callable(found) and not isinstance(found, Task):
        try:
            found = found()
        except TaskError:
            raise
        except (Exception, SystemExit) as error:
            raise TaskError(
                call, f"its function failed: {type(error).__name__}: {error}", "Mend it"
            ) from error
    if not isinstance(found, Task):
        raise TaskError(call, f"it is a {type(found).__name__}, not a Task", "See `tinypress new task.py`")
    return found


def find_attribute(spec: str) -> object:
    """What stands under ``file.py``, ``file.py:attribute`` or ``module:attribute``; by default ``task``.

    Raises:
        TaskError: there is no such file, module or attribute, or its code fails.
    """
    call = f"find_task({spec!r})"
    place, _, attribute = spec.partition(":")
    if place.endswith(".py"):
        module = _from_file(call, Path(place))
    elif ":" in spec:
        module = _from_module(call, place)
    else:
        names = [name for name, _, _ in BUILT_IN]
        close = difflib.get_close_matches(spec, names, n=1, cutoff=0.4)
        remedy = (
            f"Did you mean {close[0]!r}? A task of your own is named by its file: task.py, or --task task.py"
            if close
            else f"Use one of {names}, file.py (for a run: --task file.py) or module:attribute"
        )
        raise TaskError(call, "there is no such task", remedy)
    found: object = getattr(module, attribute or "task", None)
    if found is None:
        raise TaskError(call, f"it has no {attribute or 'task'!r}", "Name the attribute: file.py:attribute")
    return found


def _from_file(call: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(call, "there is no such file", "Write one with `tinypress new task.py`")
    name = f"tinypress_task_{path.stem}"  # a task called json.py must not stand for the real json
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # as when Python runs the file: it may import what lies beside it
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TaskError(
            call, f"running it failed: {type(error).__name__}: {error}", "Mend the file"
        ) from error
    return module


def _from_module(call: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TaskError(
            call, f"importing it failed: {type(error).__name__}: {error}", "Check the name"
        ) from error
