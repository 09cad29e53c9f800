"""What a step must leave as it was, over every pair of techniques in both orders on a CNN and on a transformer.

The steps are those of ``usual_steps``: a new technique is tried here without a new line.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from press.small import small_task
from press.two_networks import Cnn, Transformer, task_of
from tinypress.archive import read_archive, write_archive
from tinypress.errors import RecipeError
from tinypress.facts import Compressed
from tinypress.layers import stock_name
from tinypress.press.bench import Bench
from tinypress.press.composition import Promise, contract_of, refusal
from tinypress.press.compositions import completed, label_of, usual_steps
from tinypress.press.engine import Engine
from tinypress.press.recipe import Recipe, check_order
from tinypress.press.step import (
    TECHNIQUES,
    Distill,
    Factorize,
    Gradual,
    Layers,
    Magnitude,
    Qat,
    Quantize,
    Recover,
    Shrink,
    Step,
    Structured,
    Student,
)
from tinypress.press.steps import apply_step
from tinypress.prune import calculate_sparsity
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import write_onnx

STEPS = usual_steps(epochs=1)
NETWORKS: tuple[Callable[[], nn.Module], ...] = (Cnn, Transformer)
# these differ from the first step above in which weights of a layer go, and in little that follows
PLACED: tuple[Step, ...] = (
    Magnitude(sparsity=0.6, allocation="erk"),
    Magnitude(sparsity=0.6, allocation="lamp"),
    Structured(macs=0.6, importance="taylor"),
    Quantize(weights_only=True, bits=4, group_size=16, method="gptq"),
    Qat(weights_only=True, bits=4, group_size=16, distill=True, epochs=1),
)
ORDERS = [(one, two) for one in STEPS for two in STEPS if one is not two]


def fits(pair: tuple[Step, Step]) -> bool:
    return refusal(completed(*pair, Recover(epochs=1))) is None


def sample(orders: list[tuple[Step, Step]], seed: int) -> list[tuple[Step, Step]]:
    """Some of the pairs, in which every step comes first once and second once, where it may."""
    drawn = orders.copy()
    random.Random(seed).shuffle(drawn)
    first, second = set[int](), set[int]()
    chosen = []
    for one, two in drawn:
        if id(one) not in first or id(two) not in second:
            chosen.append((one, two))
            first.add(id(one))
            second.add(id(two))
    return chosen


def touching(orders: list[tuple[Step, Step]], seed: int) -> list[tuple[Step, Step]]:
    """Fewer pairs, in which every step comes once."""
    drawn = orders.copy()
    random.Random(seed).shuffle(drawn)
    seen = set[int]()
    chosen = []
    for one, two in drawn:
        if id(one) not in seen and id(two) not in seen:
            chosen.append((one, two))
            seen |= {id(one), id(two)}
    left = [pair for step in STEPS if id(step) not in seen for pair in drawn if step in pair][:1]
    return chosen + left


ALLOWED = [
    *(pair for pair in ORDERS if fits(pair)),
    *((step, Quantize()) for step in PLACED if isinstance(step, Magnitude)),
    *((STEPS[0], step) for step in PLACED if not isinstance(step, Magnitude)),
]
FAST = {Cnn: sample(ALLOWED, seed=1), Transformer: touching(ALLOWED, seed=2)}
PAIRS = [
    pytest.param(
        build,
        pair,
        marks=() if pair in FAST[build] else pytest.mark.slow,
        id=f"{build.__name__}-{' > '.join(map(label_of, pair))}",
    )
    for build in NETWORKS
    for pair in ALLOWED
]


def carry_out(build: Callable[[], nn.Module], *steps: Step) -> Compressed:
    return _carried_out(build, steps, any(isinstance(step, Student) for step in steps))


@cache
def _carried_out(build: Callable[[], nn.Module], steps: tuple[Step, ...], from_scratch: bool) -> Compressed:
    bench = Bench(task_of(build), Engine(), seed=0)
    if not steps:
        return Compressed(bench.task.model)
    before = _carried_out(build, steps[:-1], from_scratch)
    return apply_step(steps[-1], before, bench, from_scratch=from_scratch)


def weights_of(state: Compressed) -> dict[str, Tensor]:
    """By the name that a weight has in the stock network."""
    named = state.model.named_parameters(remove_duplicate=False)
    return {stock_name(state.model, name): x.detach() for name, x in named}


def answers(state: Compressed, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = state.model.eval()(x)
    return found


@pytest.mark.parametrize("step", [*STEPS, *PLACED], ids=label_of)
def test_the_network_that_came_in_is_unchanged(step: Step) -> None:
    task = small_task()
    before = copy.deepcopy(task.model.state_dict())
    if not isinstance(step, Layers):  # this network has none that can leave
        apply_step(step, Compressed(task.model), Bench(task, Engine(), 0), from_scratch=False)
    after = task.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not task.model.training


@pytest.mark.parametrize(("build", "pair"), PAIRS)
def test_every_pair_in_both_orders(
    build: Callable[[], nn.Module], pair: tuple[Step, Step], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    steps = completed(*pair, Recover(epochs=1))
    place = len(steps) - 1 if Promise.INTEGERS in contract_of(pair[1]).ensures else 1
    early = carry_out(build, *steps[:1])
    between = carry_out(build, *steps[:place])
    state = carry_out(build, *steps)
    x = task_of(build).test.inputs[0]
    logits = answers(state, x)
    assert logits.shape == (len(x), 3)
    was, middle, now = weights_of(early), weights_of(between), weights_of(state)
    if Promise.ZEROS in contract_of(pair[0]).ensures:
        for name in {stock_name(early.model, name) for name in early.pruned} & now.keys():
            if was[name].shape == now[name].shape:
                assert bool((now[name][was[name] == 0] == 0).all()), name
            assert name in {stock_name(state.model, name) for name in state.pruned}
    if isinstance(pair[0], Magnitude | Gradual):
        # 2:4 fits all layers but one
        assert calculate_sparsity(early.model) == pytest.approx(pair[0].sparsity, abs=0.07)
    if isinstance(pair[0], Magnitude) and pair[0].pattern == "2:4":
        for name in {stock_name(early.model, name) for name in early.pruned} & now.keys():
            groups = now[name].movedim(1, -1).reshape(-1, 4)
            assert int((groups != 0).sum(1).max()) <= 2, name
    if contract_of(pair[1]).keeps_widths:
        assert all(middle[name].shape == now[name].shape for name in middle.keys() & now.keys())
    write_archive(tmp_path / "a.safetensors", state)
    again = read_archive(tmp_path / "a.safetensors", task_of(build).model)
    assert torch.equal(answers(again, x), logits)
    in_full = request.node.get_closest_marker("slow") is not None
    if state.plan is not None or (in_full and build is Cnn):
        write_onnx(tmp_path / "a.onnx", state, task_of(build).example_inputs)
        shipped = torch.from_numpy(open_onnx(tmp_path / "a.onnx").run([x.numpy()]))
        assert (shipped.argmax(1) == logits.argmax(1)).float().mean() > 0.95


@pytest.mark.parametrize(
    "pair", [p for p in ORDERS if not fits(p)], ids=lambda p: " > ".join(map(label_of, p))
)
def test_the_other_pairs_are_refused_with_a_reason(pair: tuple[Step, Step]) -> None:
    found = refusal(completed(*pair, Recover(epochs=1)))
    assert found is not None
    with pytest.raises(RecipeError) as refused:
        check_order("test", Recipe(name="a", steps=completed(*pair, Recover(epochs=1))))
    assert found.reason in str(refused.value)
    assert found.remedy in str(refused.value)


CHAINS: tuple[tuple[Step, ...], ...] = (
    (Shrink(ratio=0.5), Magnitude(sparsity=0.5), Quantize()),
    (Structured(macs=0.6), Distill(epochs=1), Quantize()),
    (Factorize(energy=0.8), Magnitude(sparsity=0.5), Distill(epochs=1)),
    (Layers(count=1), Magnitude(sparsity=0.5, pattern="2:4"), Recover(epochs=1), Quantize()),
    (Layers(count=1), Structured(ratio=0.3), Distill(epochs=1), Quantize(weights_only=True, bits=4)),
    (Magnitude(sparsity=0.5), Layers(count=1), Distill(epochs=1), Quantize()),
    (Magnitude(sparsity=0.5), Shrink(ratio=0.4), Recover(epochs=1), Quantize()),
    (Student(ratio=0.5), Gradual(sparsity=0.5, epochs=1), Quantize()),
    (Student(ratio=0.5), Distill(epochs=1), Magnitude(sparsity=0.5), Recover(epochs=1), Quantize()),
    (Shrink(ratio=0.4), Factorize(energy=0.9), Distill(epochs=1), Magnitude(sparsity=0.5)),
    (Factorize(energy=0.8), Layers(count=1), Gradual(sparsity=0.5, epochs=1), Quantize()),
    (Gradual(sparsity=0.5, epochs=1), Structured(ratio=0.3, rounds=2), Quantize(weights_only=True, bits=4)),
)  # fmt: skip
IN_THE_FAST_LANE = {(3, Cnn)}


@pytest.mark.parametrize(
    ("build", "steps"),
    [
        pytest.param(
            build, steps, id=f"{build.__name__}-{number}",
            marks=() if (number, build) in IN_THE_FAST_LANE else pytest.mark.slow,
        )
        for build in NETWORKS
        for number, steps in enumerate(CHAINS)
    ],
)  # fmt: skip
def test_three_of_distinct_kinds_in_a_row(
    build: Callable[[], nn.Module], steps: tuple[Step, ...], tmp_path: Path
) -> None:
    assert len({step.technique for step in steps}) >= 3
    assert refusal(steps) is None
    state = carry_out(build, *steps)
    x = task_of(build).test.inputs[0]
    write_archive(tmp_path / "a.safetensors", state)
    again = read_archive(tmp_path / "a.safetensors", task_of(build).model)
    assert torch.equal(answers(again, x), answers(state, x))
    assert again.pruned == state.pruned
    zeroed = [step for step in steps if Promise.ZEROS in contract_of(step).ensures]
    if zeroed and not any(isinstance(step, Shrink | Structured) for step in steps[steps.index(zeroed[0]) :]):
        assert calculate_sparsity(state.model) >= 0.4
    if state.plan is not None:
        write_onnx(tmp_path / "a.onnx", state, task_of(build).example_inputs)
        shipped = torch.from_numpy(open_onnx(tmp_path / "a.onnx").run([x.numpy()]))
        assert (shipped.argmax(1) == answers(state, x).argmax(1)).float().mean() > 0.9


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.transpose(1, 2))[0][:, -1])


LAST: tuple[Step, ...] = (
    Quantize(weights_only=True, bits=4, scheme="affine"),
    Quantize(weights_only=True, bits=8),
    Qat(epochs=1, weights_only=True),
    Qat(epochs=1, weights_only=True, bits=4, group_size=16),
)


@pytest.mark.parametrize(
    ("build", "last"),
    [
        pytest.param(
            build,
            last,
            marks=() if (build, number) in {(Recurrent, 1), (Transformer, 3)} else pytest.mark.slow,
            id=f"{build.__name__}-{label_of(last)}",
        )
        for build in (Transformer, Recurrent)
        for number, last in enumerate(LAST)
    ],
)
def test_sparsity_after_quantization_is_that_before(build: Callable[[], nn.Module], last: Step) -> None:
    """Also of weights that stay float, such as those of an LSTM: they stay known as pruned."""
    pruned = carry_out(build, Magnitude(sparsity=0.6))
    final = carry_out(build, Magnitude(sparsity=0.6), last)
    assert final.pruned == pruned.pruned
    assert calculate_sparsity(final.model) >= calculate_sparsity(pruned.model)
    for name in pruned.pruned:
        zero = pruned.model.get_parameter(name) == 0
        assert bool((final.model.get_parameter(name)[zero] == 0).all())


def test_pruned_zeros_survive_recovery_distillation_and_quantization_exactly() -> None:
    pruned = carry_out(Cnn, Magnitude(sparsity=0.6))
    final = carry_out(Cnn, Magnitude(sparsity=0.6), Recover(epochs=1), Distill(epochs=1), Quantize())
    weights = dict(final.model.named_parameters())
    for name in pruned.pruned:
        was = dict(pruned.model.named_parameters())[name]
        assert bool((weights[name][was == 0] == 0).all())


def test_every_technique_is_among_the_usual_steps() -> None:
    assert {step.technique for step in STEPS} == set(TECHNIQUES)
    for technique in TECHNIQUES:
        assert any(technique in (one.technique, two.technique) for one, two in ALLOWED)
