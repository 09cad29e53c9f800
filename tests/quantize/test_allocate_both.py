"""The best options under two budgets: those of trying all, on small cases, and in good time on large ones."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinypress.errors import InputError
from tinypress.quantize import LayerBits, choose_bits
from tinypress.quantize.allocate_both import Option, allocate_both

# few different numbers, so that ties are common; losses need not fall with costs
OPTION = st.tuples(
    st.integers(0, 9), st.integers(0, 9), st.one_of(st.integers(0, 6).map(float), st.floats(0, 10))
)
LAYERS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=4)


def total(layers: list[list[Option]], picks: tuple[int, ...]) -> tuple[int, int, float]:
    chosen = [layer[k] for layer, k in zip(layers, picks, strict=True)]
    return (
        sum(a for a, _, _ in chosen),
        sum(b for _, b, _ in chosen),
        math.fsum(loss for _, _, loss in chosen),
    )


@given(LAYERS, st.integers(0, 30), st.integers(0, 30))
@example(
    [[(0, 6, 1.0), (2, 1, 4.0)], [(1, 0, 6.0), (9, 7, 1.0)]], 17, 12
)  # one costs less, the other takes less time
def test_it_is_the_best_of_all(layers: list[list[Option]], one: int, other: int) -> None:
    ends = [total(layers, picks) for picks in itertools.product(*(range(len(layer)) for layer in layers))]
    feasible = [loss for a, b, loss in ends if a <= one and b <= other]
    if not feasible:
        with pytest.raises(InputError, match="no choice meets both budgets"):
            allocate_both(layers, (one, other))
        return
    a, b, loss = total(layers, allocate_both(layers, (one, other)))
    assert a <= one
    assert b <= other
    assert loss == pytest.approx(min(feasible), abs=1e-9)


def test_fifty_layers_take_a_moment() -> None:
    random = np.random.default_rng(0)
    layers: list[list[Option]] = []
    for _ in range(50):
        size, worth = int(random.integers(1_000, 3_000_000)), float(random.lognormal(0, 2))
        noise = random.uniform(0.5, 2.0, 5)
        layers.append(
            [
                (size * bits // 8, int(size * (3 if bits > 4 else 1) * x), worth * 4.0**-bits * x)
                for bits, x in zip((32, 8, 4, 3, 2), noise, strict=True)
            ]
        )
    budgets = (sum(layer[2][0] for layer in layers), int(1.2 * sum(layer[2][1] for layer in layers)))
    start = time.process_time()
    a, b, loss = total(layers, allocate_both(layers, budgets))
    assert time.process_time() - start < 10
    assert a <= budgets[0]
    assert b <= budgets[1]
    assert loss <= total(layers, (2,) * 50)[2]


def test_bits_under_a_budget_of_time_or_of_both() -> None:
    def layer(name: str, losses: tuple[float, ...], times: tuple[float, ...]) -> list[LayerBits]:
        return [
            LayerBits(name, bits, size, loss, time)
            for bits, size, loss, time in zip((4, 8, 32), (50, 100, 400), losses, times, strict=True)
        ]

    # 8 bits are slower than floats, as where they are unpacked first
    measured = [*layer("a", (3.0, 1.0, 0.0), (0.5, 1.5, 1.0)), *layer("b", (2.0, 0.5, 0.0), (0.5, 1.5, 1.0))]
    found = choose_bits(measured, budget_ms=1.5)
    assert found.bits == {"b": 4}
    assert found.latency_ms == 1.5
    assert choose_bits(measured, budget_ms=2.0).bits == {}
    both = choose_bits(measured, 150, budget_ms=2.0)
    assert both.bits == {"a": 8, "b": 4}
    assert (both.weight_bytes, both.latency_ms) == (150, 2.0)
    assert choose_bits(measured, 150, budget_ms=1.9).bits == {"a": 4, "b": 4}
    with pytest.raises(InputError, match="takes 1 ms together"):
        choose_bits(measured, budget_ms=0.9)
    with pytest.raises(InputError, match="there is no budget"):
        choose_bits(measured)
    for wrong in (0, -1, float("nan"), float("inf"), True):
        with pytest.raises(InputError, match="must be positive"):
            choose_bits(measured, budget_ms=wrong)
    with pytest.raises(InputError, match="'a' was not timed at 4 bits"):
        choose_bits([LayerBits("a", 4, 50, 1.0)], budget_ms=1.0)
