"""The learner's journal: what was guessed, what was measured, and what was concluded, in order of time.

It is a file beside the module, ``journal.json``: ``{"entries": [{"kind", "step", "name", "value"}, ...]}``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from tinypress_course.errors import JournalError
from tinypress_course.files import write_text

Value = bool | int | float | str
Kind = Literal["prediction", "measurement", "claim"]


class Entry(BaseModel):
    """One line of the journal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    step: int = Field(ge=1, le=6)
    name: Annotated[str, Field(max_length=80)]
    value: StrictBool | StrictInt | StrictFloat | StrictStr


class Journal(BaseModel):
    """All lines, the oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: tuple[Entry, ...] = Field(default=(), max_length=10_000)

    def last(self, kind: Kind, name: str) -> Entry | None:
        """The newest line of that kind and name."""
        return next((e for e in reversed(self.entries) if (e.kind, e.name) == (kind, name)), None)

    def predicted(self, name: str) -> Entry | None:
        """The newest prediction of ``name`` that was made before its first measurement."""
        before: Entry | None = None
        for entry in self.entries:
            if entry.name == name and entry.kind == "measurement":
                break
            if entry.name == name and entry.kind == "prediction":
                before = entry
        return before


def read_journal(path: Path) -> Journal:
    """The journal at ``path``; an empty one where there is no such file.

    Raises:
        JournalError: the file is no journal.
    """
    if not path.exists():
        return Journal()
    try:
        journal = Journal.model_validate_json(path.read_bytes())
    except OSError as error:
        raise JournalError(
            f"{path.name} cannot be read ({error.strerror}). Delete it and run the module again"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise JournalError(
            f"{path.name}: {where}: {first['msg']}. Delete the file and run the module again"
        ) from error
    for place, entry in enumerate(journal.entries):
        if isinstance(entry.value, float) and not math.isfinite(entry.value):
            raise JournalError(
                f"{path.name}: entries.{place}: {entry.name} is {entry.value}. Run its step again"
            )
    return journal


def write_entries(path: Path, kind: Kind, step: int, values: dict[str, Value]) -> None:
    """Append one line for each of ``values`` to the journal at ``path``; a line that says nothing new is left out."""
    journal = read_journal(path)
    known = {(e.kind, e.name): e.value for e in journal.entries}
    new = [
        Entry(kind=kind, step=step, name=name, value=value)
        for name, value in values.items()
        if known.get((kind, name)) != value
    ]
    if not new:
        return
    entries = [entry.model_dump() for entry in (*journal.entries, *new)]
    write_text(path, json.dumps({"entries": entries}, indent=1))
