"""From a learner's file to a package of their own: their functions, and the engine that they make.

The package holds the definitions as they were written. What is not written is left out, and named.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

from tinypress import Engine
from tinypress_course.errors import CourseError
from tinypress_course.feedback import METRICS
from tinypress_course.files import write_text
from tinypress_course.module import Module

PACKAGE = "my_compression"
ENGINE_PARTS = {
    "score": "prune_weights_by_magnitude",
    "quantize": "quantize_layer_weights",
    "loss": "DistillationLoss",
    "shrink": "prune_layer_neurons",
}
_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "my-compression"
version = "0.1.0"
description = "Compression techniques, written by hand."
requires-python = ">=3.11"
dependencies = ["tinypress-course"]

[tool.setuptools]
packages = ["my_compression"]
"""

_INIT = Template('''\
"""Compression techniques, written by hand. ``ENGINE`` presses a network with them: press(task, ..., engine=ENGINE)."""

from my_compression.engine import ENGINE, NOT_WRITTEN
from my_compression.functions import (
$imports
)

__all__ = [
$names
]
''')

_ENGINE = Template('''\
"""The functions as an engine of tinypress. What is not written is the toolkit's own."""

from tinypress import Engine

from my_compression import functions

SOURCE_SHA256 = "$digest"
NOT_WRITTEN = $missing
ENGINE = Engine(
$parts
    name="mine-$short",
)
''')


@dataclass(frozen=True)
class Exported:
    """An exported package: its engine, its functions, what is not in it, and the hash of the file it came from."""

    engine: Engine
    functions: Mapping[str, Any]
    not_written: tuple[str, ...]
    source_sha256: str


def write_package(folder: Path, module: Module, source: str, digest: str, not_written: Sequence[str]) -> Path:
    """Write the package into ``folder``/my_compression and return that folder.

    Args:
        source: the definitions of the learner's file.
        digest: SHA-256 of the file they came from.
        not_written: functions that are left out.

    Raises:
        CourseError: the folder cannot be written, or nothing is written yet.
    """
    written = [name for name in module.functions if name not in not_written]
    if not written:
        raise CourseError("tito export: no function is written yet. Write one, then export")
    names = sorted({"CompressionMetrics" if name in METRICS else name for name in written})
    parts = [
        f"    {part}=functions.{name}," for part, name in ENGINE_PARTS.items() if name not in not_written
    ]
    root = folder / PACKAGE
    content = {
        "pyproject.toml": _PYPROJECT,
        f"{PACKAGE}/functions.py": f'"""The learner\'s functions, as they stand in the module."""\n\n{source}',
        f"{PACKAGE}/engine.py": _ENGINE.substitute(
            digest=digest,
            short=hashlib.sha256(source.encode()).hexdigest()[:12],
            missing=repr(tuple(not_written)),
            parts="\n".join(parts),
        ),
        f"{PACKAGE}/__init__.py": _INIT.substitute(
            imports="\n".join(f"    {name}," for name in names),
            names="\n".join(f'    "{name}",' for name in sorted([*names, "ENGINE", "NOT_WRITTEN"])),
        ),
    }
    for name, text in content.items():
        write_text(root / name, text)
    return root


def load_package(folder: Path) -> Exported:
    """The exported package of the module in ``folder``. This runs the learner's code.

    Raises:
        CourseError: nothing was exported, or the package cannot be imported.
    """
    root = folder / PACKAGE
    if not (root / PACKAGE / "__init__.py").exists():
        raise CourseError(f"{root} is missing: your functions are not exported yet. Run tito export")
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        package = importlib.import_module(PACKAGE)
        engine = importlib.import_module(f"{PACKAGE}.engine")
        functions = importlib.import_module(f"{PACKAGE}.functions")
    except Exception as error:  # whatever a learner's top level raises
        raise CourseError(
            f"{root} cannot be imported ({type(error).__name__}: {error}). Run tito test, then tito export again"
        ) from error
    finally:
        sys.path.remove(str(root))
    return Exported(package.ENGINE, vars(functions), _left_out(engine), engine.SOURCE_SHA256)


def _left_out(engine: ModuleType) -> tuple[str, ...]:
    return tuple(engine.NOT_WRITTEN)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
