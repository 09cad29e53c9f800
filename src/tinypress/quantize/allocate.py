"""One option for each layer under a budget, so that the sum of what they lose is least: solved exactly.

    minimise  Σ_l loss[l][k_l]   with   Σ_l cost[l][k_l] ≤ budget           (multiple-choice knapsack)

Dynamic programming over the layers keeps every pair (cost so far, loss so far) that no other one beats in both. Pairs
that cannot lead to a better end than one already known go as well: by Lagrangian duality a beginning of cost c and loss
v ends with no less than v + Σ_later min_k(loss + λ cost) - λ (budget - c), whatever λ ≥ 0 (Everett 1963, "Generalized
Lagrange multiplier method"; Nakagawa 1990 reduces knapsacks so). Nothing is left out that could be the best.

Axes: S pairs, K options of one layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinypress.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def allocate(options: Sequence[Sequence[tuple[int, float]]], budget: int) -> tuple[int, ...]:
    """The place of the chosen option of each layer.

    Args:
        options: for each layer its options (cost, loss); costs are whole numbers from 0, losses finite.
        budget: the most that all chosen costs together may be.

    Raises:
        InputError: a layer has no option, a number means nothing, or even the cheapest options cost more.
    """
    call = f"allocate({len(options)} layers, budget={budget!r})"
    _check(call, options, budget)
    costs = [np.array([cost for cost, _ in layer], np.int64) for layer in options]
    losses = [np.array([loss for _, loss in layer], np.float64) for layer in options]
    price, known = _known_end(costs, losses, budget)
    cheapest, bound = _of_the_rest(costs, losses, price)
    cost_S, loss_S = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[Integers, Integers]] = []
    for layer, (cost_K, loss_K) in enumerate(zip(costs, losses, strict=True)):
        cost = (cost_S[:, None] + cost_K).ravel()
        loss = (loss_S[:, None] + loss_K).ravel()
        end = loss + bound[layer + 1] - price * (budget - cost)
        alive = np.flatnonzero((cost + cheapest[layer + 1] <= budget) & (end <= known))
        order = alive[np.lexsort((loss[alive], cost[alive]))]
        best_before = np.minimum.accumulate(np.concatenate([[np.inf], loss[order][:-1]]))
        order = order[loss[order] < best_before]
        cost_S, loss_S = cost[order], loss[order]
        steps.append((order // len(cost_K), order % len(cost_K)))
    place = len(cost_S) - 1  # losses fall as costs rise
    chosen = []
    for parents, picks in reversed(steps):
        chosen.append(int(picks[place]))
        place = int(parents[place])
    return tuple(reversed(chosen))


def _known_end(costs: Sequence[Integers], losses: Sequence[Floats], budget: int) -> tuple[float, float]:
    """The price λ of a unit of cost that just meets the budget, and the loss of an end that does (a little more,
    so that rounding of sums leaves it among those kept)."""

    def pick(price: float) -> tuple[int, float]:
        # among equals the cheaper one
        picks = [
            int(np.lexsort((cost, loss + price * cost))[0]) for cost, loss in zip(costs, losses, strict=True)
        ]
        return (
            sum(int(cost[k]) for cost, k in zip(costs, picks, strict=True)),
            math.fsum(float(loss[k]) for loss, k in zip(losses, picks, strict=True)),
        )

    cost, loss = pick(0.0)
    if cost <= budget:
        return 0.0, _more(loss, losses)
    low, high = 0.0, 1.0
    while pick(high)[0] > budget:
        low, high = high, high * 4
        if math.isinf(high):  # losses so large that no price outweighs them
            cheap = [int(np.lexsort((loss, cost))[0]) for cost, loss in zip(costs, losses, strict=True)]
            return 0.0, _more(math.fsum(float(x[k]) for x, k in zip(losses, cheap, strict=True)), losses)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if pick(middle)[0] <= budget else (middle, high)
    return high, _more(pick(high)[1], losses)


def _more(loss: float, losses: Sequence[Floats]) -> float:
    return loss + 1e-9 * math.fsum(float(np.abs(x).max()) for x in losses)


def _of_the_rest(
    costs: Sequence[Integers], losses: Sequence[Floats], price: float
) -> tuple[list[int], list[float]]:
    """From each layer on: the least cost, and the least loss + price * cost."""
    cheapest, bound = [0], [0.0]
    for cost, loss in zip(reversed(costs), reversed(losses), strict=True):
        cheapest.append(cheapest[-1] + int(cost.min()))
        bound.append(bound[-1] + float((loss + price * cost).min()))
    return cheapest[::-1], bound[::-1]


def _check(call: str, options: Sequence[Sequence[tuple[int, float]]], budget: int) -> None:
    for place, layer in enumerate(options):
        if not layer:
            raise InputError(call, f"layer {place} has no option", "Give at least one")
        for cost, loss in layer:
            if cost < 0 or not math.isfinite(loss):
                raise InputError(
                    call, f"layer {place} has the option {(cost, loss)}", "Give costs from 0, finite losses"
                )
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise InputError(call, f"the budget is {budget!r}", "Give a whole number")
    least = sum(min(cost for cost, _ in layer) for layer in options)
    if least > budget:
        raise InputError(
            call, f"the cheapest options cost {least} together", f"Give a budget of {least} or more"
        )
