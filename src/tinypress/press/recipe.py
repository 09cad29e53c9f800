"""A recipe: the list of steps that press one network, written by hand in TOML or JSON and checked before any work."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from tinypress.errors import RecipeError
from tinypress.press.composition import refusal
from tinypress.press.step import ANY_STEP, TECHNIQUES, ByTechnique, Step
from tinypress.press.strict import Strict, explain, nearest, short

Shipment = Literal["onnx", "archive"]


class Recipe(Strict):
    """One candidate: its steps, what its file is for (``ship``) and, for a control, what it is the control of.

    ``signed_weights`` is for integer ONNX files: signed for processors with 8-bit dot products, unsigned for all; by
    default what suits the processor that presses.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9+._-]{0,60}$")
    about: str = ""
    role: Literal["baseline", "candidate", "control"] = "candidate"
    control_of: str | None = None
    steps: tuple[ByTechnique, ...] = ()
    ship: tuple[Shipment, ...] = Field(default=("onnx",), min_length=1)
    signed_weights: bool | None = Field(default=None, strict=True)


class RecipeFile(Strict):
    """What a recipe file may hold: one network's recipes and, optionally, seed, tolerance and a limit of bytes."""

    task: str | None = None
    seed: int | None = Field(default=None, strict=True, ge=0)
    threads: int | None = Field(default=None, strict=True, ge=1)
    tolerance: float | None = Field(default=None, strict=True, ge=0)
    max_bytes: int | None = Field(default=None, strict=True, ge=1)
    recipes: tuple[Recipe, ...] = Field(min_length=1)


def read_recipes(path: Path) -> RecipeFile:
    """Read and check a recipe file. A file with ``steps`` at its top level is a single recipe.

    Raises:
        RecipeError: the file cannot be read; a technique, key or value is unknown (the nearest right one is
            named); steps stand in an order that cannot work.
    """
    call = f"read_recipes({path.name})"
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise RecipeError(call, f"the file cannot be read ({error.strerror})", "Check its path") from error
    except (ValueError, RecursionError) as error:  # of syntax, encoding, digits or depth
        form = "TOML" if path.suffix == ".toml" else "JSON"
        raise RecipeError(call, f"it is not valid {form}: {short(error, str)}", "Mend the syntax") from error
    if not isinstance(raw, dict):
        raise RecipeError(call, "it does not hold a table", "See `tinypress press --help` for an example")
    if "steps" in raw and "recipes" not in raw:
        common = {
            key: raw.pop(key) for key in ("task", "seed", "threads", "tolerance", "max_bytes") if key in raw
        }
        name = re.sub(r"[^a-z0-9+._-]", "-", path.stem.lower()).lstrip("+._-")[:60] or "recipe"
        raw = {**common, "recipes": [{"name": name, **raw}]}
    return parse_recipes(call, raw)


def parse_recipes(call: str, raw: dict[str, Any]) -> RecipeFile:
    """Check recipes given as plain data; see ``read_recipes``."""
    _check_keys(call, "a recipe file", raw, RecipeFile)
    recipes = raw.get("recipes")
    for recipe in recipes if isinstance(recipes, list) else ():
        if not isinstance(recipe, dict):
            raise RecipeError(call, f"a recipe is no table: {short(recipe)}", "Give it a name and steps")
        _check_keys(call, f"recipe {short(recipe.get('name'))}", recipe, Recipe)
        steps = recipe.get("steps")
        for step in steps if isinstance(steps, list | tuple) else ():
            _check_names(call, step)
    try:
        file = RecipeFile.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(call, *explain(error)) from error
    names = [recipe.name for recipe in file.recipes]
    if len(set(names)) != len(names):
        raise RecipeError(call, f"two recipes have one name: {sorted(names)}", "Name each differently")
    for recipe in file.recipes:
        check_order(call, recipe)
    return file


def check_order(call: str, recipe: Recipe) -> None:
    """Refuse, before any work, an order of steps that would undo or contradict itself."""
    refused = refusal(recipe.steps)
    if refused is not None:
        raise RecipeError(
            call, f"recipe {recipe.name!r} has {refused.order}: {refused.reason}", refused.remedy
        )


def _check_names(call: str, step: Any) -> None:
    if not isinstance(step, dict) or "technique" not in step:
        raise RecipeError(
            call, f"a step names no technique: {short(step)}", f"Use one of {sorted(TECHNIQUES)}"
        )
    technique = step["technique"]
    if not isinstance(technique, str) or technique not in TECHNIQUES:
        raise RecipeError(
            call,
            f"there is no technique {short(technique)}",
            nearest(technique if isinstance(technique, str) else "", sorted(TECHNIQUES)),
        )
    _check_keys(call, repr(technique), step, TECHNIQUES[technique])


def _check_keys(call: str, what: str, given: dict[str, Any], fields: type[BaseModel]) -> None:
    known = sorted(fields.model_fields)
    for key in given:
        if key not in known:
            raise RecipeError(call, f"{what} has no setting {short(key)}", nearest(str(key), known))


def step_from(raw: dict[str, Any]) -> Step:
    """One checked step from plain data."""
    call = f"step_from({short(raw)})"
    _check_names(call, raw)
    try:
        return ANY_STEP.validate_python(raw)
    except ValidationError as error:
        raise RecipeError(call, *explain(error)) from error
