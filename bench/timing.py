"""Time several functions in turn, so that a change of the machine's mood falls on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each repeat of one function: by the clock, and of processor time in this process."""

    repeats_ms: tuple[float, ...]
    processor_ms: tuple[float, ...] = ()

    @property
    def median_ms(self) -> float:
        return statistics.median(self.repeats_ms)

    def as_json(self) -> dict[str, object]:
        """The median with the fastest and the slowest repeat beside it."""
        return {
            "median_ms": self.median_ms,
            "low_ms": min(self.repeats_ms),
            "high_ms": max(self.repeats_ms),
            "repeats_ms": list(self.repeats_ms),
            "processor_ms": list(self.processor_ms),
        }


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    room_bytes: Mapping[str, int],
    warm: frozenset[str] = frozenset(),
) -> dict[str, Timing]:
    """Time each function ``repeats`` times, one after the other in every round.

    Args:
        room_bytes: how much free memory is made ready before each call; as much as the function will need.
        warm: the functions that run once before anything is timed.
    """
    for name in functions:
        if name in warm:
            functions[name]()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    processor: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            make_ready(room_bytes[name])
            start, busy = time.perf_counter(), time.process_time()
            result = function()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - busy)
            del result
    return {
        name: Timing(*(tuple(1e3 * value for value in values[name]) for values in (seconds, processor)))
        for name in functions
    }


def make_ready(room_bytes: int) -> None:
    """Touch ``room_bytes`` of memory and free it again.

    A virtual machine gives memory that lay free for seconds back to its host, and to fetch it again takes
    longer than the work that is timed. Whoever ran after a pause would pay for it.
    """
    np.empty(room_bytes, dtype=np.uint8)[::4096] = 1


def ratio_spread(slower: Timing, faster: Timing) -> dict[str, float]:
    """How many times ``slower`` takes ``faster``: of the medians, and the least and most of the rounds."""
    rounds = [a / b for a, b in zip(slower.repeats_ms, faster.repeats_ms, strict=True)]
    return {"ratio": slower.median_ms / faster.median_ms, "low": min(rounds), "high": max(rounds)}
