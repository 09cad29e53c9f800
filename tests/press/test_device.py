"""Where a run trains: named, checked before any work, and part of what a run is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from press.small import small_task
from tinypress.errors import InputError, RunError
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.step import Distill, Gradual, Qat, Quantize, Recover, Shrink
from tinypress.press.verify import verify
from tinypress.train import one_process

RECIPES = (
    BASELINE,
    Recipe(name="recovered", steps=(Shrink(ratio=0.5), Recover(epochs=1), Quantize())),
    Recipe(name="taught", steps=(Distill(epochs=1),)),
    Recipe(name="pruned", steps=(Gradual(sparsity=0.5, epochs=2), Quantize())),
    Recipe(name="rounded", steps=(Qat(epochs=2),)),
    Recipe(name="rounded-taught", steps=(Qat(epochs=2, distill=True, bits=4, weights_only=True),)),
)


@pytest.mark.parametrize("device", ["meta", "gpu", "", "cuda:99"])
def test_a_device_that_cannot_train_is_refused_before_any_work(device: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Give 'cpu', or 'cuda' where torch sees a GPU"):
        press(small_task(), RECIPES, tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


def test_one_process_computes_where_it_is_told() -> None:
    alone = one_process("cpu")
    assert (alone.rank, alone.count, alone.device) == (0, 1, torch.device("cpu"))
    assert torch.equal(alone.gather(torch.ones(2)), torch.ones(1, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_run_trains_on_the_gpu_and_ships_from_the_processor(tmp_path: Path) -> None:
    receipt = press(small_task(), RECIPES, tmp_path / "run", device="cuda")
    assert receipt.trained_on == "cuda"
    assert not verify(tmp_path / "run", small_task())
    with pytest.raises(RunError):
        press(small_task(), RECIPES, tmp_path / "run")
