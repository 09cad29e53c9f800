"""Recipes with weights of few bits, from the step to both files and what the receipt says of them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from press.small import small_task
from tinypress.archive import read_archive
from tinypress.errors import InputError, RecipeError
from tinypress.facts import Compressed
from tinypress.measure.packed import packed_weights
from tinypress.press.bench import Bench
from tinypress.press.compare import BASELINE
from tinypress.press.engine import Engine
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe, step_from
from tinypress.press.step import Magnitude, Quantize
from tinypress.press.steps import apply_step
from tinypress.press.verify import verify
from tinypress.quantize import dequantize_layer_weights
from tinypress.train.processes import one_process

TASK = small_task()
BENCH = Bench(TASK, Engine(), seed=0)


def test_a_recipe_ships_four_bits_as_both_files(tmp_path: Path) -> None:
    four = Quantize(bits=4, weights_only=True, group_size=16, method="gptq", batch_norm=True)
    steps = (Magnitude(sparsity=0.3), four)
    recipe = Recipe(name="gptq4", steps=steps, ship=("onnx", "archive"))
    receipt = press(small_task(), (BASELINE, recipe), tmp_path / "run")
    layers = {layer.name: layer for layer in receipt.candidate("gptq4").layers}
    assert {name: (layer.kind, layer.bits) for name, layer in layers.items() if layer.macs} == {
        "0": ("Conv", 4),
        "5": ("MatMulNBits", 4),
        "7": ("MatMulNBits", 4),
    }
    found = {finding.code: finding.text for finding in receipt.candidate("gptq4").findings}
    assert "turns the integers of these layers into floats before it computes: 0." in found["TP213"]
    assert receipt.candidate("gptq4").nonzero_parameters < receipt.candidate("gptq4").parameters
    plan = read_archive(tmp_path / "run" / "artifacts" / "gptq4.archive.safetensors", small_task().model).plan
    assert plan is not None
    stored, _ = packed_weights(onnx.load(tmp_path / "run" / "artifacts" / "gptq4.onnx").graph)
    for name in ("5.weight", "7.weight"):
        assert (stored[name][0] == dequantize_layer_weights(plan.weights[name]).numpy()).all()
    both = [receipt.candidate(name).quality.value for name in ("gptq4", "gptq4.archive")]
    assert both[0] == both[1]
    assert verify(tmp_path / "run", small_task()) == ()


def test_a_step_estimates_batch_norm_again() -> None:
    bench, plans = Bench(small_task(), Engine(), 0), []
    for again in (False, True):
        step = Quantize(bits=2, weights_only=True, batch_norm=again)
        plans.append(apply_step(step, Compressed(bench.task.model), bench, from_scratch=False).plan)
    assert plans[0] is not None
    assert plans[1] is not None
    scales = [plan.weights["0.weight"].scale for plan in plans if plan is not None]
    assert not torch.allclose(scales[0], scales[1], rtol=1e-3)
    assert torch.equal(*(plan.weights["7.weight"].scale for plan in plans if plan is not None))


def test_a_step_learns_its_blocks_with_the_seed_and_settings_given() -> None:
    settings = {
        "bits": 3,
        "weights_only": True,
        "group_size": 16,
        "method": "blocks",
        "calibration_samples": 64,
    }
    done = {
        (steps, seed): apply_step(
            Quantize(**settings, block_steps=steps, block_batch=16),
            Compressed(TASK.model),
            Bench(TASK, Engine(), seed, processes=one_process("cpu")),
            from_scratch=False,
        )
        for steps, seed in ((20, 0), (2, 0), (20, 1))
    }
    learnt = {key: [c.now for c in found.changes if "error" in c.what] for key, found in done.items()}
    assert learnt[20, 0]
    assert learnt[20, 0] != learnt[20, 1]
    assert learnt[20, 0] != learnt[2, 0]
    # batch norm is folded, and what the integers stand for is in the network
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in done[20, 0].model.modules())
    plan = done[20, 0].plan
    assert plan is not None
    for name, weight in plan.weights.items():
        assert torch.equal(dequantize_layer_weights(weight), done[20, 0].model.get_parameter(name))


@pytest.mark.slow
def test_a_recipe_of_blocks_is_pressed_shipped_and_verified(tmp_path: Path) -> None:
    blocks = Quantize(bits=4, weights_only=True, group_size=16, method="blocks", block_steps=20)
    recipe = Recipe(name="blocks4", steps=(Magnitude(sparsity=0.3), blocks), ship=("onnx", "archive"))
    receipt = press(small_task(), (BASELINE, recipe), tmp_path / "run")
    candidate = receipt.candidate("blocks4")
    assert candidate.nonzero_parameters <= 0.72 * candidate.parameters
    assert verify(tmp_path / "run", small_task()) == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights_only": True, "block_steps": 9}, "block_steps needs method"),
        ({"weights_only": True, "method": "blocks", "batch_norm": True}, "folds batch norm"),
        ({"method": "awq"}, "method needs weights_only"),
        ({"weights_only": True, "ranges": "mse"}, "ranges is of activations"),
        ({"bits": 4, "other_ranges": {"0": "mse"}}, "other_ranges is of activations"),
        ({"other_ranges": {"0": "kl"}}, "other_ranges.0.1: Input should be 'minmax'"),
        ({"weights_only": True, "per_channel": False}, "scales for each channel or group"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Quantize(**settings)


def test_ranges_and_layers_that_stay_float_come_from_a_recipe(tmp_path: Path) -> None:
    step = step_from(
        {"technique": "quantize", "keep": ["5"], "ranges": "mse", "other_ranges": {"7": "moving"}}
    )
    assert step_from(step.model_dump(mode="json")) == step
    assert len({step, Quantize()}) == 2
    with pytest.raises(InputError, match="'7' makes no value that is quantized"):  # what it makes stays float
        apply_step(step, Compressed(TASK.model), BENCH, from_scratch=False)
    step = step.model_copy(update={"other_ranges": (("0", "percentile"),)})
    done = apply_step(step, Compressed(TASK.model), BENCH, from_scratch=False)
    assert done.plan is not None
    assert set(done.plan.weights) == {"0.weight", "7.weight"}
    assert [(note.code, note.layer) for note in done.notes] == [("TP204", "5")]
    usual = apply_step(Quantize(), Compressed(TASK.model), BENCH, from_scratch=False)
    assert usual.notes == ()
    assert usual.plan is not None
    assert {name for name in done.plan.values if done.plan.values[name] != usual.plan.values[name]}
