"""The best options under a budget: those of trying all, on small cases, and in good time on large ones."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinypress.errors import InputError
from tinypress.quantize.allocate import allocate

Option = tuple[int, float]
# few different numbers, so that ties are common; losses need not fall with cost
OPTION = st.tuples(st.integers(0, 9), st.one_of(st.integers(0, 6).map(float), st.floats(0, 10)))
LAYERS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5)


def total(layers: list[list[Option]], picks: tuple[int, ...]) -> tuple[int, float]:
    chosen = [layer[k] for layer, k in zip(layers, picks, strict=True)]
    return sum(cost for cost, _ in chosen), math.fsum(loss for _, loss in chosen)


@given(LAYERS, st.integers(0, 45))
def test_it_is_the_best_of_all(layers: list[list[Option]], budget: int) -> None:
    ends = [total(layers, picks) for picks in itertools.product(*(range(len(layer)) for layer in layers))]
    feasible = [loss for cost, loss in ends if cost <= budget]
    if not feasible:
        with pytest.raises(InputError, match="cheapest options cost"):
            allocate(layers, budget)
        return
    cost, loss = total(layers, allocate(layers, budget))
    assert cost <= budget
    assert loss == pytest.approx(min(feasible), abs=1e-9)


def test_a_greedy_choice_is_not_the_best() -> None:
    # per byte the first layer gains most, and then nothing is left for the second
    layers = [[(0, 10.0), (6, 3.0)], [(0, 10.0), (10, 0.0)]]
    assert allocate(layers, 10) == (0, 1)
    assert allocate(layers, 16) == (1, 1)
    assert allocate(layers, 9) == (1, 0)


def test_a_hundred_layers_of_millions_of_bytes_take_a_moment() -> None:
    random = np.random.default_rng(0)
    layers: list[list[Option]] = []
    for _ in range(100):
        size, worth = int(random.integers(1_000, 3_000_000)), float(random.lognormal(0, 2))
        noise = random.uniform(0.5, 2.0, 6)
        layers.append(
            [(size * b // 8, worth * 4.0**-b * n) for b, n in zip((8, 6, 5, 4, 3, 2), noise, strict=True)]
        )
    budget = sum(layer[3][0] for layer in layers)
    start = time.process_time()
    cost, loss = total(layers, allocate(layers, budget))
    assert time.process_time() - start < 5
    assert cost <= budget
    assert loss < total(layers, (3,) * 100)[1]


@pytest.mark.parametrize(
    ("layers", "budget", "problem"),
    [
        ([[]], 3, "no option"),
        ([[(-1, 0.0)]], 3, "the option"),
        ([[(1, math.nan)]], 3, "the option"),
        ([[(1, 0.0)]], True, "the budget is True"),
        ([[(5, 0.0)], [(2, 1.0), (3, 0.0)]], 6, "cheapest options cost 7"),
    ],
)
def test_what_means_nothing_is_refused(layers: list[list[Option]], budget: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        allocate(layers, budget)
