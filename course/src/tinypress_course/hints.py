"""The hints of a module: three for each function, from a nudge to the steps in words; never code."""

from __future__ import annotations

from importlib.resources import files

import yaml

STAGES = ("a nudge", "the idea", "the steps")


def read_hints(module: str) -> dict[str, tuple[str, str, str]]:
    """The three hints of each function of ``module``."""
    text = (files("tinypress_course") / "hints" / f"{module}.yaml").read_text(encoding="utf-8")
    return {name: (each["nudge"], each["idea"], each["steps"]) for name, each in yaml.safe_load(text).items()}
