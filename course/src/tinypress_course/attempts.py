"""What was tried so far: attempts and hints for each function, kept beside the module in ``.tito.json``.

An attempt is a function that was tested, written, and not yet right; the same text counts once. Every attempt opens
one more hint.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinypress_course.errors import CourseError
from tinypress_course.files import write_text

STATE = ".tito.json"


class Tried(BaseModel):
    """One function: how often it was tried, which text last, and how many hints were shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=0, ge=0)
    last: str = ""
    hints: int = Field(default=0, ge=0)
    attempts_at_last_hint: int = Field(default=0, ge=0)


class Attempts(BaseModel):
    """All functions that were tried, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    functions: dict[str, Tried] = Field(default_factory=dict)

    def of(self, function: str) -> Tried:
        """What is known of one function."""
        return self.functions.get(function, Tried())


def read_attempts(folder: Path) -> Attempts:
    """The state in ``folder``; an empty one where there is none.

    Raises:
        CourseError: the file is no such state.
    """
    path = folder / STATE
    if not path.exists():
        return Attempts()
    try:
        return Attempts.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise CourseError(
            f"{path} cannot be read ({said}). Delete it: only the count of attempts is lost"
        ) from error


def with_attempt(attempts: Attempts, function: str, source: str) -> Attempts:
    """``attempts`` with one more of ``function``, unless its ``source`` is the one that was tried last."""
    tried = attempts.of(function)
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    if digest == tried.last:
        return attempts
    return _with(attempts, function, tried, attempts=tried.attempts + 1, last=digest)


def with_hint(attempts: Attempts, function: str) -> Attempts:
    """``attempts`` with one more hint shown."""
    tried = attempts.of(function)
    return _with(attempts, function, tried, hints=tried.hints + 1, attempts_at_last_hint=tried.attempts)


def write_attempts(folder: Path, attempts: Attempts) -> None:
    """Keep ``attempts`` in ``folder``."""
    write_text(folder / STATE, attempts.model_dump_json(indent=1))


def _with(known: Attempts, function: str, tried: Tried, **new: int | str) -> Attempts:
    return Attempts(functions={**known.functions, function: tried.model_copy(update=new)})
