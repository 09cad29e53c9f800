"""The step 'quantize' with layers that round their input at run time, from the recipe to the receipt."""

from __future__ import annotations

from pathlib import Path

import pytest

from press.small import small_task
from tinypress.errors import RecipeError
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe, step_from
from tinypress.press.step import Quantize
from tinypress.press.verify import verify


@pytest.mark.slow
def test_a_recipe_ships_layers_that_need_no_ranges(tmp_path: Path) -> None:
    recipe = Recipe(name="now", steps=(Quantize(dynamic=True, keep=("0",)),), ship=("onnx", "archive"))
    receipt = press(small_task(), (BASELINE, recipe), tmp_path / "run")
    now = receipt.candidate("now")
    layers = {layer.name: (layer.kind, layer.bits) for layer in now.layers if layer.macs}
    assert layers == {"0": ("Conv", 32), "5": ("MatMulInteger", 8), "7": ("MatMulInteger", 8)}
    assert now.macs == receipt.baseline.macs
    assert now.artifact.bytes < receipt.baseline.artifact.bytes
    assert now.latency_ms is not None
    assert now.equality is not None
    assert now.equality.layers == now.equality.bit_equal == 1
    assert {finding.code for finding in now.findings} >= {"TP202", "TP204"}
    assert verify(tmp_path / "run", small_task()) == ()


def test_settings_that_mean_nothing_with_it_are_refused() -> None:
    for settings in ({"bits": 4}, {"weights_only": True}, {"ranges": "mse"}):
        with pytest.raises(RecipeError, match=r"dynamic needs 8 symmetric bits|is of activations"):
            step_from({"technique": "quantize", "dynamic": True, **settings})
    step = step_from({"technique": "quantize", "dynamic": ["lstm"], "ranges": "mse"})
    assert isinstance(step, Quantize)
    assert step.dynamic == ("lstm",)
