"""Python's collector of cycles, at rest for a while."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """A graph is a great many small objects, none of them in a cycle: the collector would go through them again and
    again, for a third of the time, and free nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
