"""What is planted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Planted:
    """One mistake: in ``file`` (relative to the package) ``new`` stands where ``old`` should. ``test`` is a
    node id relative to the folder of tests."""

    name: str
    file: str
    old: str
    new: str
    test: str
