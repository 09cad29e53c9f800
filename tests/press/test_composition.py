"""What a step must leave as it was, over every technique: inputs unchanged, zeros kept, widths kept, reload equal."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch

from press.small import small_task
from tinypress.archive import read_archive, write_archive
from tinypress.facts import Compressed
from tinypress.press.composition import refusal
from tinypress.press.engine import Engine
from tinypress.press.step import (
    Distill,
    Factorize,
    Gradual,
    Magnitude,
    Qat,
    Quantize,
    Recover,
    Shrink,
    Step,
    Structured,
)
from tinypress.press.steps import Bench, apply_step
from tinypress.prune import calculate_sparsity
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import write_onnx

TASK = small_task()
BENCH = Bench(TASK, Engine(), seed=0)
STEPS: tuple[Step, ...] = (
    Magnitude(sparsity=0.6),
    Gradual(sparsity=0.6, epochs=1),
    Shrink(ratio=0.5),
    Structured(macs=0.6, importance="taylor"),
    Factorize(energy=0.7),
    Recover(epochs=1),
    Distill(epochs=1),
    Quantize(),
    Quantize(weights_only=True, bits=4, group_size=16, method="gptq"),
    Qat(epochs=1),
    Qat(weights_only=True, bits=4, group_size=16, distill=True, epochs=1),
)
# these differ from the first step above in which weights of a layer go, and in little that follows
PLACED: tuple[Step, ...] = (
    Magnitude(sparsity=0.5, pattern="2:4"),
    Magnitude(sparsity=0.6, allocation="erk"),
    Magnitude(sparsity=0.6, allocation="lamp"),
)
NARROWING = Shrink | Structured


def allowed(one: Step, two: Step) -> bool:
    """Whether a recipe may have this order; what it may not is in ``test_order.py``."""
    return one is not two and refusal((one, two)) is None


ORDERS = [
    *((one, two) for one in STEPS for two in STEPS if allowed(one, two)),
    *((step, Quantize()) for step in PLACED),
    (PLACED[0], Recover(epochs=1)),
]


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


SAMPLE = sample(ORDERS, seed=1)
PAIRS = [pytest.param(pair, marks=() if pair in SAMPLE else pytest.mark.slow) for pair in ORDERS]


def name(step: Step) -> str:
    if isinstance(step, Quantize | Qat) and step.weights_only:
        return f"{step.technique} weights"
    special = step.pattern or step.allocation if isinstance(step, Magnitude) else None
    return f"{step.technique} {special}" if special else step.technique


def names(steps: tuple[Step, ...]) -> str:
    return ">".join(name(step) for step in steps)


def carry_out(steps: tuple[Step, ...]) -> Compressed:
    state = Compressed(TASK.model)
    for step in steps:
        state = apply_step(step, state, BENCH, from_scratch=False)
    return state


@pytest.mark.parametrize("step", [*STEPS, *PLACED], ids=name)
def test_the_network_that_came_in_is_unchanged(step: Step) -> None:
    before = copy.deepcopy(TASK.model.state_dict())
    apply_step(step, Compressed(TASK.model), BENCH, from_scratch=False)
    after = TASK.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not TASK.model.training


@pytest.mark.parametrize("steps", PAIRS, ids=names)
def test_every_pair_in_both_orders(steps: tuple[Step, Step], tmp_path: Path) -> None:
    state = carry_out(steps)
    x = TASK.test.inputs[0]
    with torch.no_grad():
        logits = state.model(x)
    assert logits.shape == (len(x), 3)
    if isinstance(steps[0], Magnitude | Gradual):
        expected = calculate_sparsity(carry_out(steps[:1]).model)
        assert expected == pytest.approx(steps[0].sparsity, abs=0.07)  # 2:4 fits two of three layers
        assert calculate_sparsity(state.model) >= expected - (0.15 if isinstance(steps[1], NARROWING) else 0)
    if isinstance(steps[0], NARROWING) and not isinstance(steps[1], NARROWING | Factorize):
        narrow = carry_out(steps[:1]).model.state_dict()
        kept = state.model.state_dict()
        assert all(kept[name].shape == narrow[name].shape for name in narrow if name in kept)
    write_archive(tmp_path / "a.safetensors", state)
    again = read_archive(tmp_path / "a.safetensors", TASK.model)
    with torch.no_grad():
        assert torch.equal(again.model.eval()(x), logits)
    write_onnx(tmp_path / "a.onnx", state, TASK.example_inputs)
    shipped = torch.from_numpy(open_onnx(tmp_path / "a.onnx").run([x.numpy()]))
    assert (shipped.argmax(1) == logits.argmax(1)).float().mean() > 0.97


def test_pruned_zeros_survive_recovery_and_quantization_exactly() -> None:
    pruned = carry_out((Magnitude(sparsity=0.6),))
    final = carry_out((Magnitude(sparsity=0.6), Recover(epochs=1), Distill(epochs=1), Quantize()))
    weights = dict(final.model.named_parameters())
    for name in pruned.pruned:
        was = dict(pruned.model.named_parameters())[name]
        assert bool((weights[name][was == 0] == 0).all())
