"""What a module says about itself in module.yaml, and where a module's folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinypress_course.errors import CourseError

MODULE = "10_compression"
SOURCE = "compression_dev.py"
JOURNAL = "journal.json"


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prerequisite(_Fact):
    """An earlier module, and what of it is used here."""

    name: str
    used_for: str


class Step(_Fact):
    """One of the six steps and the functions that are written in it."""

    number: Annotated[int, Field(ge=1)]
    title: str
    functions: tuple[str, ...]


class Component(_Fact):
    """A name that the learner's package has in the end."""

    name: str
    kind: str


class Module(_Fact):
    """module.yaml."""

    title: str
    about: str
    prerequisites: tuple[Prerequisite, ...]
    goals: tuple[str, ...]
    time_hours: float
    steps: tuple[Step, ...]
    components: tuple[Component, ...]
    tests: str
    files: tuple[str, ...]

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of all functions that are written, in the order of the steps."""
        return tuple(name for step in self.steps for name in step.functions)

    def step_of(self, function: str) -> Step:
        """The step in which ``function`` is written."""
        return next(step for step in self.steps if function in step.functions)


def read_module(folder: Path) -> Module:
    """The module.yaml in ``folder``.

    Raises:
        CourseError: there is none, or it is not what a module says about itself.
    """
    path = folder / "module.yaml"
    try:
        return Module.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise CourseError(
            f"{path} is missing: this is no module's folder. Begin one with: tito start 10_compression"
        ) from error
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise CourseError(f"{path} cannot be read ({str(error).splitlines()[0]}). Restore it") from error


def find_module(name: str | None = None, here: Path | None = None) -> Path:
    """The folder of the module that is meant: ``here`` or the nearest folder above it, else ``here/name``.

    Raises:
        CourseError: there is no such folder.
    """
    here = (here if here is not None else Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "module.yaml").exists() and (folder / SOURCE).exists():
            if name is None or folder.name == name:
                return folder
            break
    inside = [each.parent for each in sorted(here.glob("*/module.yaml")) if (each.parent / SOURCE).exists()]
    chosen = [each for each in inside if name is None or each.name == name]
    if len(chosen) == 1:
        return chosen[0]
    if len(chosen) > 1:
        names = ", ".join(each.name for each in chosen)
        raise CourseError(f"there are several modules here ({names}): go into the folder of one")
    raise CourseError(
        f"there is no module {name or ''} here: go into its folder, or begin it with: tito start "
        f"{name or '10_compression'}".replace("module  here", "module here")
    )


def work_file(folder: Path) -> Path:
    """The learner's work in ``folder``: the script, or the notebook made from it where that was changed later."""
    script, notebook = folder / SOURCE, (folder / SOURCE).with_suffix(".ipynb")
    if notebook.exists() and (not script.exists() or notebook.stat().st_mtime > script.stat().st_mtime):
        return notebook
    return script
