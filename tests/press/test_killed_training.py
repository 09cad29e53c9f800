"""A press that is killed in the middle of a training goes on in the middle of it, to the same bits."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from press.small import small_task
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.step import Distill, Magnitude, Qat, Recover

RECIPES = (
    BASELINE,
    Recipe(
        name="taught",
        steps=(Magnitude(sparsity=0.5), Recover(epochs=3), Distill(epochs=3), Qat(epochs=3)),
        ship=("archive",),
    ),
)
STEPS = 3 * 3 * 5  # three trainings of three epochs of five batches

SCRIPT = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
import torch
torch.set_num_threads(1)
from press.small import small_task
from press.test_killed_training import RECIPES
from tinypress.press.pipeline import press
from tinypress.press.run_folder import RunFolder
from tinypress.train import loop
from tinypress.train.checkpoint import Checkpoint
RunFolder.checkpoint = lambda self, key: Checkpoint(self.state / "training" / f"{{key}}.safetensors", 0.0, key)
left, inner = int(sys.argv[2]), loop._step
def step(*given):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    return inner(*given)
loop._step = step
try:
    press(small_task(), RECIPES, Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
(Path(sys.argv[1]).parent / "left").write_text(str(left))
"""


def run(out: Path, kill_at: int, how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(out), str(kill_at), how], capture_output=True, text=True
    )
    assert done.returncode in (0, 130, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize(
    ("seed", "times"),
    [pytest.param(0, 2, marks=pytest.mark.slow), pytest.param(1, 5, marks=pytest.mark.slow)],
)
def test_killed_at_random_steps(seed: int, times: int, tmp_path: Path) -> None:
    out, whole = tmp_path / "killed", tmp_path / "whole"
    draw, taken, kills = random.Random(seed), 0, 0
    while True:
        kill_at = draw.randint(2, 9)
        how = draw.choice(["SIGKILL", "SIGINT"])
        code = run(out, kill_at if kills < times else 10_000, how)
        if code == 0:
            break
        assert code == (130 if how == "SIGINT" else -signal.SIGKILL)
        taken += kill_at - 1  # steps that this process finished: each is in the checkpoint
        kills += 1
        assert list((out / "state" / "training").glob("*.safetensors"))
    assert kills == times
    assert 10_000 - int((tmp_path / "left").read_text()) == STEPS - taken  # no step was taken twice
    assert not list((out / "state" / "training").iterdir())
    press(small_task(), RECIPES, whole)
    name = Path("artifacts") / "taught.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()
