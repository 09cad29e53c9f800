"""Patterns and allocations: exact counts, brute force, the papers' equations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.prune import (
    calculate_sparsity,
    erk_counts,
    lamp_scores,
    prune_model_by_magnitude,
    prune_weights_at_random,
)

SIZES = st.integers(1, 4)


def integers(*shape: int, seed: int) -> Tensor:
    """Weights with many ties and zeros."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def linear(outputs: int, inputs: int, seed: int) -> nn.Sequential:
    layer = nn.Linear(inputs, outputs, bias=False)
    layer.weight = nn.Parameter(integers(outputs, inputs, seed=seed))
    return nn.Sequential(layer)


def brute(groups: list[list[float]], gone: int) -> list[set[int]]:
    """The set of each group whose removal takes the least, the earlier indices first among equals."""
    found = []
    for group in groups:
        sets = itertools.combinations(range(len(group)), gone)
        found.append(set(min(sets, key=lambda s: (sum(sorted(abs(group[i]) for i in s)), s))))
    return found


@given(SIZES, SIZES, st.sampled_from([(1, 2), (2, 4), (4, 8), (1, 3), (3, 4)]), st.integers(0, 10_000))
def test_n_of_m_is_that_of_brute_force(outputs: int, count: int, nm: tuple[int, int], seed: int) -> None:
    n, m = nm
    model = linear(outputs, count * m, seed)
    before = model[0].weight.detach().clone()
    done = prune_model_by_magnitude(model, 1 - n / m, pattern=f"{n}:{m}")
    after = done.model.get_parameter("0.weight").detach()
    groups = before.view(-1, m)
    for group, now, gone in zip(groups, after.view(-1, m), brute(groups.tolist(), m - n), strict=True):
        expected = [0.0 if i in gone else float(x) for i, x in enumerate(group)]
        assert now.tolist() == expected
        assert int((now != 0).sum()) <= n
    assert torch.equal(before, model[0].weight)
    assert done.pruned == {"0.weight"}


@given(
    st.integers(1, 3), st.integers(1, 3), SIZES, SIZES, st.floats(0, 1), st.booleans(), st.integers(0, 10_000)
)
def test_blocks_go_whole_and_exactly_as_many(
    rows: int, columns: int, down: int, across: int, sparsity: float, together: bool, seed: int
) -> None:
    if rows * columns == 1:
        return
    model = nn.Sequential(*linear(down * rows, across * columns, seed), *linear(rows, columns * 2, seed + 1))
    scope = "global" if together else "layer"
    done = prune_model_by_magnitude(model, sparsity, pattern=f"{rows}x{columns}", scope=scope)  # type: ignore[arg-type]
    sums: list[list[tuple[float, int]]] = []
    gone: list[list[bool]] = []
    for name in ("0.weight", "1.weight"):
        was, now = (m.get_parameter(name).detach() for m in (model, done.model))
        pairs, zeros = [], []
        for r in range(0, len(was), rows):
            for c in range(0, was.shape[1], columns):
                block, left = was[r : r + rows, c : c + columns], now[r : r + rows, c : c + columns]
                pairs.append((float(block.abs().sum()), len(pairs)))
                assert torch.equal(left, block) or not bool(left.any())
                zeros.append(not bool(left.any()))
        sums.append(pairs)
        gone.append(zeros)
    parts = [list(zip(sums, gone, strict=True))] if together else [[x] for x in zip(sums, gone, strict=True)]
    for part in parts:
        ranked = sorted(
            ((value, number, place) for number, (pairs, _) in enumerate(part) for value, place in pairs)
        )
        count = round(sparsity * len(ranked))
        expected = {(number, place) for _, number, place in ranked[:count]}
        for number, (pairs, zeros) in enumerate(part):
            for value, place in pairs:
                assert zeros[place] == ((number, place) in expected or value == 0)


def test_groups_run_along_the_inputs_of_every_kind_of_layer() -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ConvTranspose1d(8, 2, 3), nn.Linear(4, 3))
    done = prune_model_by_magnitude(model, 0.5, pattern="2:4").model
    conv = done.get_parameter("0.weight")
    assert bool(((conv != 0).sum(1) == 2).all())
    transposed = done.get_parameter("1.weight").view(2, 4, 2, 3)
    assert bool(((transposed != 0).sum(1) == 2).all())
    assert calculate_sparsity(done) == 0.5


def test_what_the_pattern_does_not_divide_is_left_alone_and_said() -> None:
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.Conv1d(8, 8, 3, groups=8), nn.Linear(8, 5))
    done = prune_model_by_magnitude(model, 0.5, pattern="2:4")
    assert [(note.code, note.layer) for note in done.notes] == [("TP112", "0"), ("TP112", "1")]
    assert torch.equal(done.model.get_parameter("0.weight"), model.get_parameter("0.weight"))
    assert done.pruned == {"2.weight"}
    with pytest.raises(ModelError, match="divides"):
        prune_model_by_magnitude(nn.Sequential(nn.Linear(3, 3)), 0.5, pattern="2:4")


def control(layer: nn.Module, sparsity: float) -> object:
    return prune_weights_at_random(layer, sparsity, seed=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pattern": "4:2"}, "prune nothing"),
        ({"pattern": "2/4"}, "no such pattern"),
        ({"pattern": "1x1"}, "no pattern"),
        ({"pattern": "2:4", "sparsity": 0.6}, "brings a sparsity of 0.5"),
        ({"allocation": "even"}, "allocation"),
        ({"pattern": "2:4", "allocation": "erk"}, "shared out"),
        ({"pattern": "2:4", "score": control}, "another score"),
        ({"allocation": "lamp", "score": control}, "another score"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prune_model_by_magnitude(nn.Sequential(nn.Linear(4, 4)), **{"sparsity": 0.5, **settings})  # type: ignore[arg-type]


SHAPES = {"conv": (16, 3, 3, 3), "mid": (32, 16, 3, 3), "wide": (64, 288), "head": (10, 64)}


def test_erk_has_the_densities_of_the_equation() -> None:
    """density_l = ε (O + I + w + h) / (O I w h), and 1 where that is more."""
    total = sum(math.prod(shape) for shape in SHAPES.values())
    counts = erk_counts("test", SHAPES, 0.6)
    assert sum(counts.values()) == round(0.6 * total)
    density = {name: 1 - counts[name] / math.prod(shape) for name, shape in SHAPES.items()}
    raw = {name: sum(shape) / math.prod(shape) for name, shape in SHAPES.items()}
    free = [name for name in SHAPES if density[name] < 1]
    assert 0 < len(free) < len(SHAPES)
    scale = {density[name] / raw[name] for name in free}
    assert max(scale) == pytest.approx(min(scale), rel=0.01)
    assert all(max(scale) * raw[name] > 0.99 for name in SHAPES if name not in free)


@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=4), min_size=1, max_size=6), st.floats(0, 1))
def test_erk_counts_are_exact(shapes: list[list[int]], sparsity: float) -> None:
    named = {str(number): shape for number, shape in enumerate(shapes)}
    counts = erk_counts("test", named, sparsity)
    sizes = {name: math.prod(shape) for name, shape in named.items()}
    assert sum(counts.values()) == round(sparsity * sum(sizes.values()))
    assert all(0 <= counts[name] <= sizes[name] for name in named)


@given(st.integers(1, 40), st.integers(0, 10_000))
def test_lamp_is_that_of_the_equation(size: int, seed: int) -> None:
    weights = integers(size, seed=seed)
    found = lamp_scores(weights)
    order = sorted(range(size), key=lambda i: (abs(float(weights[i])), i))
    for place, u in enumerate(order):
        rest = sum(float(weights[v]) ** 2 for v in order[place:])
        expected = float(weights[u]) ** 2 / rest if rest else 0.0
        assert float(found[u]) == pytest.approx(expected)


def test_allocations_prune_exactly_as_many() -> None:
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4))
    with torch.no_grad():
        model[2].weight.mul_(1e-3)  # global magnitude would empty this layer
    for allocation in ("uniform", "erk", "lamp"):
        done = prune_model_by_magnitude(model, 0.8, allocation=allocation)  # type: ignore[arg-type]
        weights = [done.model.get_parameter(name) for name in sorted(done.pruned)]
        assert sum(int((w == 0).sum()) for w in weights) == round(0.8 * 680)
        assert all(bool((w != 0).any()) for w in weights)
        for name in done.pruned:
            was, now = (m.get_parameter(name).detach() for m in (model, done.model))
            assert float(was[now == 0].abs().max()) <= float(was[now != 0].abs().min())
    assert not bool(prune_model_by_magnitude(model, 0.8).model.get_parameter("2.weight").any())
    uniform = prune_model_by_magnitude(model, 0.8, allocation="uniform").model
    assert torch.equal(
        uniform.get_parameter("2.weight"),
        prune_model_by_magnitude(model, 0.8, scope="layer").model.get_parameter("2.weight"),
    )
    counts = erk_counts("test", {"0.weight": (20, 30), "2.weight": (4, 20)}, 0.8)
    for score in (control, prune_model_by_magnitude.__kwdefaults__["score"]):
        shared = prune_model_by_magnitude(model, 0.8, allocation="erk", score=score)
        found = {name: int((shared.model.get_parameter(name) == 0).sum()) for name in counts}
        assert found == counts


def test_nan_is_refused_whatever_the_pattern() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].weight.detach()[0, 0] = math.nan
    for settings in ({"pattern": "2:4"}, {"pattern": "2x2"}, {"allocation": "erk"}, {"allocation": "lamp"}):
        with pytest.raises(ModelError, match="NaN"):
            prune_model_by_magnitude(model, 0.5, **settings)  # type: ignore[arg-type]
