"""Layers timed at each number of bits in ONNX Runtime, and bits that a recipe chooses under a budget of time."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from press.small import small_task
from tinypress.errors import InputError, RecipeError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.bit_latency import measure_bit_latencies
from tinypress.press.engine import Engine
from tinypress.press.recipe import step_from
from tinypress.press.step import Quantize
from tinypress.press.steps import apply_step
from tinypress.quantize import LayerBits, choose_bits


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.conv = nn.Conv1d(4, 8, 3)
        self.wide = nn.Linear(8, 1024)
        self.back = nn.Linear(1024, 1024)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.words(ids).transpose(1, 2)).mean(2)
        found: torch.Tensor = self.back(self.wide(x))
        return found


def options(*names: str) -> list[LayerBits]:
    return [LayerBits(name, bits, 1, 0.0) for name in names for bits in (8, 4, 32)]


def test_each_layer_is_timed_at_each_number_of_bits() -> None:
    ids = torch.randint(0, 10, (2, 6))
    measured = options("words", "conv", "wide", "back")
    found = measure_bit_latencies(measured, Net().eval(), (ids,), group_size=32, seconds=0.05)
    assert [(each.layer, each.bits) for each in found] == [(each.layer, each.bits) for each in measured]
    times = {(each.layer, each.bits): each.latency_ms for each in found}
    assert all(times["words", bits] == 0 for bits in (8, 4, 32))
    assert all(time is not None and time > 0 for (name, _), time in times.items() if name != "words")
    packed, floats, unpacked = (times["back", bits] for bits in (4, 32, 8))
    assert packed is not None
    assert floats is not None
    assert unpacked is not None
    assert packed < unpacked  # multiplied as it is packed, where 8 bits become floats first
    whole = sum(each.latency_ms or 0 for each in found if each.bits == 32)
    mixed = choose_bits(found, budget_ms=2 * whole)
    assert mixed.latency_ms is not None
    assert mixed.latency_ms <= 2 * whole


def test_layers_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="'elsewhere' is no layer"):
        measure_bit_latencies(options("elsewhere"), Net(), (torch.zeros(1, 6, dtype=torch.long),))


def test_a_step_chooses_bits_under_a_budget_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task()

    def timed(measured: list[LayerBits], *_: object, **__: object) -> list[LayerBits]:
        took = {2: 1.0, 4: 2.0, 32: 3.0}
        return [LayerBits(m.layer, m.bits, m.weight_bytes, m.loss, took[m.bits]) for m in measured]

    monkeypatch.setattr(importlib.import_module("tinypress.press.quantized"), "measure_bit_latencies", timed)
    step = Quantize(weights_only=True, budget_ms=7.0, choices=(4, 2))
    after = apply_step(step, Compressed(task.model), Bench(task, Engine(), seed=0), from_scratch=False)
    assert after.plan is not None
    took = {2: 1.0, 4: 2.0}
    layers = ("0.weight", "5.weight", "7.weight")
    assert sum(took[after.plan.weights[n].bits] if n in after.plan.weights else 3.0 for n in layers) <= 7.0
    with pytest.raises(InputError, match="and 9 ms, so that the budget changes nothing"):
        apply_step(
            Quantize(weights_only=True, budget_ms=9.0, choices=(4, 2)),
            Compressed(task.model),
            Bench(task, Engine(), seed=0),
            from_scratch=False,
        )


def test_a_budget_of_time_is_of_weights_alone() -> None:
    with pytest.raises(RecipeError, match="budget_ms needs weights_only"):
        step_from({"technique": "quantize", "budget_ms": 1.0})
    with pytest.raises(RecipeError, match="give layers, or a budget"):
        step_from({"technique": "quantize", "budget_ms": 1.0, "weights_only": True, "layers": {"a": 4}})
