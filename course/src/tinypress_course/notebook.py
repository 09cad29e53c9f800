"""The module's script as a Jupyter notebook and back: the same cells, nbgrader's metadata, equal bytes every time."""

from __future__ import annotations

import hashlib
import re
from itertools import count
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from tinypress_course.cells import read_raw

# they say who wrote a script, not what it is
_VERSIONS = re.compile(r"^# +(?:format|jupytext)_version: .*\n", re.MULTILINE)


def read_notebook(path: Path) -> Any:
    """The notebook in a percent script or an ``.ipynb``.

    Raises:
        SourceError: there is no such file, or it is neither.
    """
    return read_raw(path)


def notebook_text(notebook: Any) -> str:
    """``notebook`` as the text of an ``.ipynb``, each cell with an id made from what it is."""
    taken: set[str] = set()
    for cell in notebook.cells:
        cell.id = _id(cell, taken)
        taken.add(cell.id)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def script_text(notebook: Any) -> str:
    """``notebook`` as the text of a percent script."""
    text = str(jupytext.writes(notebook, fmt="py:percent"))
    header = re.match(r"# ---\n(?:#.*\n)*?# ---\n", text)
    end = header.end() if header else 0
    return _VERSIONS.sub("", text[:end]) + text[end:]


def _id(cell: Any, taken: set[str]) -> str:
    """The grade_id, else a digest of the text; a number tells equal ones apart."""
    graded = str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
    name = (
        re.sub(r"[^A-Za-z0-9_-]", "-", graded)[:56] or hashlib.sha256(cell.source.encode()).hexdigest()[:12]
    )
    numbered = (name if again == 0 else f"{name}-{again}" for again in count())
    return next(each for each in numbered if each not in taken)
