"""Latency of one forward pass, always beside the baseline's: timed in turn, so that a noisy machine
slows both alike and the ratio holds even where the milliseconds do not.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tinypress.errors import InputError
from tinypress.measure.interval import median_interval
from tinypress.receipt import Latency, Ratio

Call = Callable[[], object]
ROUNDS = 21
SHORTEST = 1e-3  # seconds of one timing; below it the clock and the loop around the call are felt
MOST_REPEATS = 2**20


def interleave(
    baseline: Call,
    candidate: Call,
    *,
    batch: int,
    threads: int,
    seconds: float = 0.6,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time two forward passes in turn; the latency of ``candidate``, and its ratio to ``baseline``.

    Both are warmed up, and repeated until one timing takes a millisecond. Then they take turns, three each
    a round where ``seconds`` allow it and one each where not, the order swapped from round to round, for
    ``seconds`` and at least ``rounds`` rounds. A round's value is the median of its timings, its ratio that
    of the two values; the latency and the ratio given are medians over rounds, with the 95 % intervals of
    ``interval.median_interval``. They tell how the run varied, not how another machine would.

    ``batch`` and ``threads`` are those that the two calls work with; they are only noted.

    Raises:
        InputError: no positive time, fewer than 6 rounds, or a batch or number of threads below 1.
    """
    _check(seconds, rounds, batch, threads)
    was, now = _in_turn((baseline, candidate), seconds, rounds, clock)
    return _latency(now, [y / x for x, y in zip(was, now, strict=True)], batch, threads)


def alone(
    baseline: Call,
    *,
    batch: int,
    threads: int,
    seconds: float = 0.6,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time the baseline by itself, in the way of ``interleave``; its ratio to itself is 1.

    Raises:
        InputError: as ``interleave``.
    """
    _check(seconds, rounds, batch, threads)
    (values,) = _in_turn((baseline,), seconds, rounds, clock)
    return _latency(values, [1.0] * len(values), batch, threads)


def in_turn(
    calls: Sequence[Call],
    *,
    batch: int,
    threads: int,
    seconds: float = 0.6,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Time any number of forward passes in turn, in the way of ``interleave``; each ratio is to the first.

    Raises:
        InputError: as ``interleave``, or there is nothing to time.
    """
    _check(seconds, rounds, batch, threads)
    if not calls:
        raise InputError("in_turn([])", "there is nothing to time", "Give at least one call")
    first, *others = _in_turn(calls, seconds, rounds, clock)
    return [
        _latency(values, [y / x for x, y in zip(first, values, strict=True)], batch, threads)
        for values in (first, *others)
    ]


def _in_turn(
    calls: Sequence[Call], seconds: float, rounds: int, clock: Callable[[], float]
) -> list[list[float]]:
    """Seconds of one call of each of ``calls``, one value a round.

    More than two are shuffled each round, always alike, so that no place in the order falls in step with what else
    the machine does.
    """
    shuffled = random.Random(0)
    with _no_collection():
        repeats = [_warm_up(call, seconds / 20, clock) for call in calls]
        once = sum(_timing(call, count, clock) * count for call, count in zip(calls, repeats, strict=True))
        turns = 3 if 3 * rounds * once <= seconds else 1
        values: list[list[float]] = [[] for _ in calls]
        start = clock()
        while len(values[0]) < rounds or (clock() - start < seconds and len(values[0]) < 100 * rounds):
            timings: list[list[float]] = [[] for _ in calls]
            order = list(range(len(calls)))
            if len(order) > 2:
                shuffled.shuffle(order)
            elif len(values[0]) % 2:
                order.reverse()
            for _ in range(turns):
                for which in order:
                    timings[which].append(_timing(calls[which], repeats[which], clock))
            for which, found in enumerate(timings):
                values[which].append(statistics.median(found))
    return values


def _warm_up(call: Call, seconds: float, clock: Callable[[], float]) -> int:
    """Call until caches are filled and pages touched; how many repeats one timing needs."""
    start = clock()
    for done in range(1, MOST_REPEATS):
        call()
        if done >= 3 and clock() - start >= seconds:
            break
    repeats = 1
    while repeats < MOST_REPEATS and _timing(call, repeats, clock) * repeats < SHORTEST:
        repeats *= 2
    return repeats


def _timing(call: Call, repeats: int, clock: Callable[[], float]) -> float:
    """Seconds of one call, as the mean of ``repeats``."""
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running inside a timing."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _latency(values: list[float], ratios: list[float], batch: int, threads: int) -> Latency:
    low, high = median_interval(values)
    ratio_low, ratio_high = median_interval(ratios)
    return Latency(
        median=1000 * statistics.median(values),
        low=1000 * low,
        high=1000 * high,
        batch=batch,
        threads=threads,
        ratio_to_baseline=Ratio(value=statistics.median(ratios), low=ratio_low, high=ratio_high),
    )


def _check(seconds: float, rounds: int, batch: int, threads: int) -> None:
    call = f"interleave(batch={batch}, threads={threads}, seconds={seconds}, rounds={rounds})"
    if not seconds > 0:
        raise InputError(call, f"seconds is {seconds}", "Give a positive time to measure for")
    if rounds < 6:
        raise InputError(
            call, f"{rounds} rounds give no 95 % interval", "Give at least 6 rounds; 21 is usual"
        )
    if batch < 1 or threads < 1:
        raise InputError(call, "batch and threads start at 1", "Give those that the two calls work with")
