"""Cases that several promises share are drawn once, so that an answer to them can be remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from tinypress_course.checks.base import Case, Draw


def once(cases: Callable[[Draw], Iterator[Case]]) -> Callable[[Draw], Iterator[Case]]:
    """``cases``, giving the very same objects for the same draw."""

    @lru_cache(maxsize=4)
    def drawn(draw: Draw) -> tuple[Case, ...]:
        return tuple(cases(draw))

    return lambda draw: iter(drawn(draw))
