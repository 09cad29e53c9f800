"""One option for each layer under two budgets at once, so that the sum of what they lose is least: solved exactly.

    minimise  Σ_l loss[l][k_l]   with   Σ_l a[l][k_l] ≤ A,   Σ_l b[l][k_l] ≤ B

Dynamic programming over the layers as in ``allocate.py``, over triples (a, b, loss) so far. Triples go that another one
equals or beats in all three, that no later layers can bring under both budgets, and that cannot end better than an end
already known, by the bound that any prices λ ≥ 0 and μ ≥ 0 of the two costs give (Everett 1963). Good prices are found
along the subgradient, a good end by changing layers two at a time; how good they are changes the work, not the result.

Axes: S triples, K options of one layer.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinypress.errors import InputError

Option = tuple[int, int, float]
_STEPS = 300


def allocate_both(options: Sequence[Sequence[Option]], budgets: tuple[int, int]) -> tuple[int, ...]:
    """The place of the chosen option of each layer.

    Args:
        options: for each layer its options (cost, other cost, loss); costs are whole numbers from 0.
        budgets: the most that all chosen costs, and all other costs, may be together.

    Raises:
        InputError: a layer has no option, a number means nothing, or no choice meets both budgets.
    """
    call = f"allocate_both({len(options)} layers, budgets={budgets!r})"
    if not all(options) or any(min(a, b) < 0 or not math.isfinite(loss) for o in options for a, b, loss in o):
        raise InputError(
            call, "a layer has no option, or one that means nothing", "Give costs from 0, finite losses"
        )
    costs = [np.array([option[:2] for option in layer], np.int64) for layer in options]
    losses = [np.array([option[2] for option in layer], np.float64) for layer in options]
    most = np.array(budgets, np.int64)
    prices, known = _prices(costs, losses, most)
    least, bound = _of_the_rest(costs, losses, prices)
    cost_S2, loss_S = np.zeros((1, 2), np.int64), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for layer, (cost_K2, loss_K) in enumerate(zip(costs, losses, strict=True)):
        cost = (cost_S2[:, None] + cost_K2).reshape(-1, 2)
        loss = (loss_S[:, None] + loss_K).ravel()
        end = loss + bound[layer + 1] - (most - cost) @ prices
        alive = np.flatnonzero((cost + least[layer + 1] <= most).all(1) & (end <= known))
        order = _unbeaten(cost, loss, alive)
        cost_S2, loss_S = cost[order], loss[order]
        steps.append((order // len(cost_K2), order % len(cost_K2)))
    if not len(loss_S):
        raise InputError(call, "no choice meets both budgets", "Give more of one of them")
    place = int(loss_S.argmin())
    chosen = []
    for parents, picks in reversed(steps):
        chosen.append(int(picks[place]))
        place = int(parents[place])
    return tuple(reversed(chosen))


def _unbeaten(
    cost: NDArray[np.int64], loss: NDArray[np.float64], alive: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Those of ``alive`` that none other equals or beats in both costs and in the loss."""
    order = alive[np.lexsort((loss[alive], cost[alive, 1], cost[alive, 0]))]
    others: list[int] = []  # rising, and the least loss that is had for each: falling
    least: list[float] = []
    kept = []
    for place in order.tolist():
        other, lost = int(cost[place, 1]), float(loss[place])
        before = bisect.bisect_right(others, other)
        if before and least[before - 1] <= lost:
            continue
        kept.append(place)
        after = bisect.bisect_left(others, other)
        while after < len(others) and least[after] >= lost:
            del others[after], least[after]
        others.insert(after, other)
        least.insert(after, lost)
    return np.array(kept, np.int64)


def _prices(
    costs: Sequence[NDArray[np.int64]], losses: Sequence[NDArray[np.float64]], most: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Prices of the two costs whose bound is high, and the loss of an end that is good, with room for rounding."""
    size = np.maximum(most.astype(np.float64), 1.0)
    spread = sum(float(loss.max() - loss.min()) for loss in losses)
    prices, best, bound, known = np.zeros(2), np.zeros(2), -math.inf, math.inf
    for step in range(_STEPS):
        picks = [
            int(np.argmin(loss + cost @ (prices / size))) for cost, loss in zip(costs, losses, strict=True)
        ]
        over = (np.sum([cost[k] for cost, k in zip(costs, picks, strict=True)], axis=0) - most) / size
        lost = math.fsum(float(loss[k]) for loss, k in zip(losses, picks, strict=True))
        if (over <= 0).all() and lost < known:
            known = min(known, _improved(costs, losses, most, picks))
        value = lost + float(over @ prices)
        if value > bound:
            bound, best = value, prices
        # Polyak's step towards an end that is known; without one a step that becomes shorter
        far = (known - value) / max(float(over @ over), 1e-12) if known < math.inf else spread / (1 + step)
        prices = np.maximum(prices + far * over, 0.0)
    room = 1e-9 * math.fsum(float(np.abs(loss).max()) for loss in losses)
    return best / size, known + room


def _improved(
    costs: Sequence[NDArray[np.int64]],
    losses: Sequence[NDArray[np.float64]],
    most: NDArray[np.int64],
    picks: Sequence[int],
) -> float:
    """The loss after changing one layer or two at a time for as long as that loses less and meets both budgets."""
    now = list(picks)
    layer_M = np.concatenate([np.full(len(loss), place) for place, loss in enumerate(losses)])
    option_M = np.concatenate([np.arange(len(loss)) for loss in losses])
    for _ in range(_STEPS):
        total = np.sum([cost[k] for cost, k in zip(costs, now, strict=True)], axis=0)
        cost_M2 = np.concatenate([cost - cost[k] for cost, k in zip(costs, now, strict=True)])
        loss_M = np.concatenate([loss - loss[k] for loss, k in zip(losses, now, strict=True)])
        # a move that changes nothing is among them, so that pairs are single moves as well
        after = cost_M2[:, None] + cost_M2 + total
        gain = np.where((after <= most).all(2) & (layer_M[:, None] != layer_M), loss_M[:, None] + loss_M, 0.0)
        best = int(gain.argmin())
        if gain.flat[best] >= -1e-12:
            break
        for move in divmod(best, len(loss_M)):
            now[layer_M[move]] = int(option_M[move])
    return math.fsum(float(loss[k]) for loss, k in zip(losses, now, strict=True))


def _of_the_rest(
    costs: Sequence[NDArray[np.int64]], losses: Sequence[NDArray[np.float64]], prices: NDArray[np.float64]
) -> tuple[list[NDArray[np.int64]], list[float]]:
    """From each layer on: the least of each cost, and the least loss with both costs at their prices."""
    least, bound = [np.zeros(2, np.int64)], [0.0]
    for cost, loss in zip(reversed(costs), reversed(losses), strict=True):
        least.append(least[-1] + cost.min(0))
        bound.append(bound[-1] + float((loss + cost @ prices).min()))
    return least[::-1], bound[::-1]
