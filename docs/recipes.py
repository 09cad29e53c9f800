"""Write the page of all steps and their settings from the classes that check them: ``python docs/recipes.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tinypress.press.step import STEPS

PAGE = Path(__file__).with_name("recipes.md")

HEAD = """\
# The steps of a recipe

A recipe is a TOML or JSON file with a `name`, what to `ship` (`onnx`, `archive`) and a list of steps, carried out in
order. Each step names its `technique`; a setting that is left out has the value given here, and one without a value
has to be given. Sparsity, ratios and shares are fractions from 0 to 1. `python docs/recipes.py` writes this page.
"""


def page() -> str:
    """The page as it has to be."""
    return HEAD + "".join(_section(step) for step in STEPS)


def _section(step: Any) -> str:
    text = " ".join((step.__doc__ or "").replace("``", "`").split())
    fields = {name: field for name, field in step.model_fields.items() if name != "technique"}
    rows = "".join(f"| `{name}` | {_values(field)} | {_default(field)} |\n" for name, field in fields.items())
    title = step.model_fields["technique"].default
    return f"\n## `{title}`\n\n{text}\n\n| setting | values | left out |\n|---|---|---|\n{rows}"


def _values(field: FieldInfo) -> str:
    kind = field.annotation
    options = (
        [each for each in get_args(kind) if each is not type(None)]
        if type(None) in get_args(kind)
        else [kind]
    )
    kind = options[0]
    if get_origin(kind) is Literal:
        return ", ".join(
            f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in get_args(kind)
        )
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is tuple:  # pairs: a name and what it gets
        value = get_args(get_args(kind)[0])[1]
        options = get_args(value) if get_origin(value) is Literal else ()
        return f"table from names to {', '.join(f'`{option}`' for option in options) or 'whole numbers'}"
    if get_origin(kind) is tuple and get_args(kind)[0] is not str:
        return "list of whole numbers"
    words = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text"}
    word = words.get(kind, "list of names")  # type: ignore[arg-type]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(each, name)}"
        for each in field.metadata
        for name, sign in signs.items()
        if getattr(each, name, None) is not None and getattr(each, name) < 2**31
    ]
    return " ".join([word, ", ".join(bounds)]).strip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "has to be given"
    value = field.default
    if value is None:
        return "none"
    if value == ():
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
