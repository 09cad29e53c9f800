"""Settings that are checked as they are made, with errors that name the nearest right word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tinypress.errors import RecipeError


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # a signature here would hide the fields from the type checker

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                given = ", ".join(f"{key}={short(value)}" for key, value in values.items())
                raise RecipeError(f"{type(self).__name__}({given})", *explain(error)) from error


def nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Use one of {known}"


def short(value: object, shown: Callable[[object], str] = repr) -> str:
    """``value`` as text that fits a message, however long or deep it is."""
    try:
        text = shown(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 120 else text[:117] + "..."


def explain(error: ValidationError) -> tuple[str, str]:
    """The first problem and its remedy."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) + ": " if first["loc"] else ""
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, RecipeError):  # of a step or recipe inside
        return f"{place}{inner.problem}", inner.remedy
    given = first.get("input")
    got = f" (got {short(given)})" if place else ""  # of the whole the call says it
    problem = f"{place}{first['msg'].removeprefix('Value error, ')}{got}"
    if first["type"] == "literal_error" and isinstance(given, str):
        return problem, nearest(given, re.findall("'([^']+)'", str(first.get("ctx", {}).get("expected"))))
    return problem, "Correct the recipe"
