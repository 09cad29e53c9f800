"""The step 'quantize' with bits by layer: from a table, or chosen under a budget of bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from press.small import small_task
from tinypress.archive import read_archive, write_archive
from tinypress.errors import InputError, RecipeError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.engine import Engine
from tinypress.press.step import Quantize
from tinypress.press.steps import apply_step
from tinypress.quantize.sensitivity import weight_bytes
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import write_onnx

TASK = small_task()
BENCH = Bench(TASK, Engine(), seed=0)


def apply(step: Quantize) -> Compressed:
    return apply_step(step, Compressed(TASK.model), BENCH, from_scratch=False)


def test_a_budget_is_met_and_the_result_ships(tmp_path: Path) -> None:
    found = apply(Quantize(weights_only=True, budget_bytes=0.15, method="mse"))
    assert found.plan is not None
    named = dict(found.model.named_parameters())
    weights = {name: x for name, x in named.items() if x.dim() > 1}
    whole = sum(4 * x.numel() for x in weights.values())
    spent = sum(
        weight_bytes(found.plan.weights[name]) if name in found.plan.weights else 4 * x.numel()
        for name, x in weights.items()
    )
    assert 0.1 * whole < spent <= 0.15 * whole
    assert len({weight.bits for weight in found.plan.weights.values()}) > 1
    x = TASK.test.inputs[0]
    with torch.no_grad():
        logits = found.model(x)
    write_archive(tmp_path / "a.safetensors", found)
    again = read_archive(tmp_path / "a.safetensors", TASK.model)
    with torch.no_grad():
        assert torch.equal(again.model.eval()(x), logits)
    write_onnx(tmp_path / "a.onnx", found, TASK.example_inputs)
    shipped = torch.from_numpy(open_onnx(tmp_path / "a.onnx").run([x.numpy()]))
    assert torch.allclose(shipped, logits, atol=1e-3)


def test_a_table_gives_bits_by_layer() -> None:
    names = [f"{name}.weight" for name, layer in TASK.model.named_modules() if hasattr(layer, "weight")]
    first, last = names[0], names[-1]
    table = {first.removesuffix(".weight"): 4, last.removesuffix(".weight"): 2}
    found = apply(Quantize(weights_only=True, layers=table))
    assert found.plan is not None
    assert {name: weight.bits for name, weight in found.plan.weights.items()} == {first: 4, last: 2}
    assert apply(Quantize(layers=table)).plan is not None


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="budget_bytes needs weights_only"):
        Quantize(budget_bytes=0.1)
    with pytest.raises(RecipeError, match="or a budget_bytes that chooses"):
        Quantize(weights_only=True, budget_bytes=0.1, layers={"a": 4})
    with pytest.raises(RecipeError, match="one of them twice"):
        Quantize(weights_only=True, budget_bytes=0.1, choices=(4, 4))
    with pytest.raises(InputError, match="changes nothing"):
        apply(Quantize(weights_only=True, budget_bytes=10**9))
    with pytest.raises(InputError, match="the budget is 1"):
        apply(Quantize(weights_only=True, budget_bytes=1))
