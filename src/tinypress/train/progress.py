"""Who watches a piece of work, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Told how far a piece of work is: ``done`` of ``total`` steps of ``what``."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def with_time_left(tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """Progress that gives ``tell`` one line a step: what is done, and the time left at the speed so far.

    The speed is that since this piece of work was first told of, so that steps that an earlier process took
    do not count.
    """
    begun: dict[str, tuple[float, int]] = {}

    def progress(what: str, done: int, total: int) -> None:
        now = clock()
        start, first = begun.setdefault(what, (now, done))
        line = f"{what}: {done}/{total}"
        if done > first and done < total:
            line += f", {_duration((now - start) / (done - first) * (total - done))} left"
        tell(line)

    return progress


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
