"""Layers that are named to keep their neurons."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import nn

from tinypress.errors import ModelError
from tinypress.shrink.groups import has_neurons


def held_by(paths: Sequence[str], keep: Sequence[str]) -> str | None:
    """The first of ``paths`` that is named in ``keep`` or lies in a module that is; None if there is none."""
    return next((path for path in paths for kept in keep if f"{path}.".startswith(f"{kept}.")), None)


def check_paths(call: str, model: nn.Module, paths: Sequence[object]) -> None:
    """Check that each of ``paths`` is a module of the network.

    Raises:
        ModelError: one is not; the nearest is named.
    """
    known = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for path in paths:
        if path in known and (path or has_neurons(model)):
            continue
        near = difflib.get_close_matches(str(path), known, 1)
        some = ", ".join(filter(None, known[:20])) or "its modules"
        remedy = f"Did you mean {near[0]!r}?" if near else f"Name one of {some}"
        raise ModelError(call, f"the network has no layer {path!r}", remedy)
