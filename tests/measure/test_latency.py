"""Latency on a clock of our own: what is timed, in which order, and what comes of noise."""

import gc

import numpy as np
import pytest

from tinypress.errors import InputError
from tinypress.measure.latency import alone, interleave


class World:
    """A clock that only calls move, and the order in which they came."""

    def __init__(self, noise=0.0, seed=0):
        self.now, self.log = 0.0, []
        self.noise, self.generator = noise, np.random.default_rng(seed)
        self.slow_from = float("inf")

    def clock(self):
        return self.now

    def call(self, name, cost):
        def run():
            factor = 1.0 + self.noise * self.generator.exponential()
            if self.now >= self.slow_from:
                factor *= 3.0
            self.now += cost * factor
            self.log.append((name, gc.isenabled()))

        return run


def measure(world, was, now, **settings):
    calls = world.call("A", was), world.call("B", now)
    return interleave(*calls, batch=1, threads=1, clock=world.clock, **settings)


def test_milliseconds_and_ratio_of_a_quiet_machine():
    found = measure(World(), 0.004, 0.001)
    assert (found.median, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    ratio = found.ratio_to_baseline
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.25, 0.25, 0.25))


def test_it_is_the_candidate_over_the_baseline():
    assert measure(World(), 0.001, 0.010).ratio_to_baseline.value == pytest.approx(10.0)
    assert measure(World(), 0.001, 0.010).median == pytest.approx(10.0)


def turns(log):
    """The log with repeats of one name in a row as one."""
    names = [name for name, _ in log]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_the_two_take_turns_and_swap_the_order_every_round():
    world = World()
    measure(world, 0.050, 0.050, seconds=0.1)  # slow: one turn a round, the least number of rounds
    order = "".join(name for name, _ in world.log)
    assert order.endswith("AB" + "BAAB" * 10)
    assert len(order) < 60


def test_short_calls_are_repeated_until_the_clock_can_see_them():
    world = World()
    found = measure(world, 1e-5, 1e-5, seconds=0.3)
    assert found.median == pytest.approx(0.01)
    runs, names = [], [name for name, _ in world.log]
    for i, name in enumerate(names):
        if i and names[i - 1] == name:
            runs[-1] += 1
        else:
            runs.append(1)
    assert min(runs[5:-1]) >= 100  # of 10 µs each: a millisecond
    assert len(turns(world.log)) > 3 * 2 * 21 / 2


def test_both_are_warmed_up_first():
    world, costs = World(), iter([1.0, 0.5])

    def cold_at_first():
        world.now += next(costs, 0.002)
        world.log.append(("B", False))

    found = interleave(world.call("A", 0.002), cold_at_first, batch=1, threads=1, clock=world.clock)
    assert found.high == pytest.approx(2.0)


def test_a_machine_that_slows_down_leaves_the_ratio():
    world = World(noise=0.05)
    world.slow_from = 0.3
    found = measure(world, 0.004, 0.002)
    assert found.high > 1.5 * found.low
    ratio = found.ratio_to_baseline
    assert ratio.low <= 0.5 * 1.02
    assert ratio.high >= 0.5 * 0.98
    assert ratio.high - ratio.low < 0.1


@pytest.mark.slow
def test_noise_is_covered_and_not_averaged_in():
    covered = 0
    for seed in range(20):
        world = World(noise=0.3, seed=seed)
        ratio = measure(world, 0.003, 0.003).ratio_to_baseline
        covered += ratio.low <= 1.0 <= ratio.high
    assert covered >= 17


def test_the_collector_is_off_while_timing_and_on_afterwards():
    world = World()
    measure(world, 0.002, 0.002)
    assert not any(on for _, on in world.log)
    assert gc.isenabled()

    def broken():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        interleave(broken, broken, batch=1, threads=1)
    assert gc.isenabled()


def test_the_baseline_alone_has_a_ratio_of_one():
    world = World(noise=0.1)
    found = alone(world.call("A", 0.002), batch=4, threads=2, clock=world.clock)
    assert found.ratio_to_baseline.model_dump() == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert 2.0 <= found.low <= found.median <= found.high < 3.0
    assert (found.batch, found.threads) == (4, 2)


def test_ten_times_the_work_is_seen_on_the_real_clock():
    def once():
        return sum(range(3000))

    def ten_times():
        return [once() for _ in range(10)]

    found = interleave(once, ten_times, batch=1, threads=1, seconds=0.2)
    assert found.ratio_to_baseline.value > 2.0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"rounds": 5}, "5 rounds give no"),
        ({"batch": 0}, "batch and threads"),
        ({"threads": 0}, "batch and threads"),
    ],
)
def test_settings_that_cannot_be_timed_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        interleave(list, list, **({"batch": 1, "threads": 1} | settings))
