"""What a recipe says, read as plain data: which steps press, which teach, and whether press can carry it out."""

from __future__ import annotations

from collections.abc import Sequence

from tinypress import Recipe
from tinypress_course.models import Plain

TEACHING = ("recover", "distill")
SMALLER = ("shrink", "student")


def filled(recipe: Plain) -> Plain:
    """``recipe`` with everything that it leaves to the defaults; as it is where press could not read it."""
    try:
        return Recipe(**recipe).model_dump(mode="json")
    except (ValueError, TypeError):
        return recipe


def kinds(recipe: Plain) -> list[str]:
    """The techniques of its steps."""
    return [str(step.get("technique")) for step in recipe["steps"]]


def pressing(recipe: Plain) -> list[Plain]:
    """The steps that press; those that teach stay out."""
    return [step for step in recipe["steps"] if step.get("technique") not in TEACHING]


def pressing_kinds(recipe: Plain) -> list[str]:
    """The techniques that press."""
    return [str(step.get("technique")) for step in pressing(recipe)]


def first(recipe: Plain, *techniques: str) -> Plain:
    """The first step by one of ``techniques``; None where there is none."""
    return next((step for step in recipe["steps"] if step.get("technique") in techniques), None)


def impossible(recipe: Plain) -> str | None:
    """Why press would refuse ``recipe``."""
    try:
        Recipe(**recipe)
    except (ValueError, TypeError) as error:
        return f"recipe {recipe.get('name')!r} is none that press can read ({str(error)[:160]})"
    steps = kinds(recipe)
    if "quantize" in steps[:-1]:
        return f"recipe {recipe['name']!r} goes on after 'quantize', which moves the weights off their steps"
    if "student" in steps[1:]:
        return f"recipe {recipe['name']!r} throws earlier steps away with a new 'student'"
    if "student" in steps and not set(TEACHING) & set(steps):
        return f"recipe {recipe['name']!r} never trains its 'student'"
    quantize = first(filled(recipe), "quantize")
    if quantize and "onnx" in recipe["ship"] and (quantize["bits"] != 8 or quantize["scheme"] != "symmetric"):
        return f"recipe {recipe['name']!r} ships as ONNX what only an archive can hold"
    return None


def words(names: Sequence[str]) -> str:
    """Names as a person would list them."""
    return ", ".join(map(repr, names)) if names else "none"
