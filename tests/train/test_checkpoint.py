"""A training that was killed goes on to the same bits, wherever it was killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError, RunError
from tinypress.task import Split
from tinypress.train import Checkpoint, Hook, Schedule, fit, supervised
from tinypress.train.sealed import read_sealed, write_sealed

CROSS = supervised(nn.functional.cross_entropy)
ADAMW = Schedule(epochs=3, learning_rate=0.02, batch_size=8, warmup_steps=4)
SCHEDULES = {
    "adamw": ADAMW,
    "sgd": replace(ADAMW, optimizer="sgd"),
    "sgd without momentum": replace(ADAMW, optimizer="sgd", momentum=0.0, clip_norm=None),
    "patience": replace(ADAMW, epochs=9, learning_rate=0.5, patience=1),
    "bfloat16": replace(ADAMW, precision="bfloat16"),
}


class Killed(Exception):
    """Stands for the end of the process."""


class Net(nn.Module):
    """Dropout, batch norm, a shared weight, and a buffer that ``state_dict`` leaves out."""

    drift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.3)
        self.one = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        self.other.weight = self.one.weight
        self.head = nn.Linear(4, 3)
        self.register_buffer("drift", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.conv(x)).relu().mean(2))
        if self.training:
            self.drift = self.drift * 0.9 + x.detach().mean()
        out: Tensor = self.head(self.other(self.one(x).relu()) + self.drift)
        return out


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def data(samples: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 2, 6, generator=generator)
    return Split((x,), torch.bucketize(x.sum((1, 2)), torch.tensor([-1.0, 1.0])))


TRAIN, VALIDATION = data(43, 1), data(20, 2)
STEPS = 3 * 6


def counting(kill_at: int | None) -> Callable[[nn.Module, int], Hook]:
    """A hook with a memory: it moves the head by a running mean of its gradients, and may kill the training."""

    def make(model: nn.Module, total: int) -> Hook:
        head = model.get_parameter("head.weight")
        mean = torch.zeros_like(head)

        def before(step: int) -> None:
            assert head.grad is not None
            mean.mul_(0.5).add_(head.grad)

        def after(step: int) -> None:
            head.detach().sub_(0.01 * mean)
            if step == kill_at:
                raise Killed

        return Hook(after, before, {"mean": mean.detach()})

    return make


def train(schedule: Schedule, checkpoint: Checkpoint | None = None, kill_at: int | None = None) -> nn.Module:
    hooks = [counting(kill_at)]
    return fit(
        network(), TRAIN, VALIDATION, CROSS, schedule, hooks=hooks, checkpoint=checkpoint
    ).model  # fmt: skip


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (one, other))
    return all(torch.equal(x, theirs[name]) for name, x in mine.items())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_killed_again_and_again_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    schedule = SCHEDULES[name]
    whole = train(schedule)
    place = Checkpoint(tmp_path / "state.safetensors", every_seconds=0.0)
    kills = 0
    for kill_at in sorted(random.Random(name).sample(range(1, STEPS), 5)):
        try:
            train(schedule, place, kill_at)
        except Killed:
            kills += 1
    assert kills >= 2
    assert same(train(schedule, place), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("kill_at", range(1, STEPS + 1))
def test_at_every_step(kill_at: int, tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "state.safetensors", every_seconds=0.0)
    with pytest.raises(Killed):
        train(ADAMW, place, kill_at)
    assert same(train(ADAMW, place), train(ADAMW))


def test_steps_since_the_last_checkpoint_are_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(Killed):
        train(ADAMW, Checkpoint(path, every_seconds=0.0), kill_at=5)
    with pytest.raises(Killed):
        train(ADAMW, Checkpoint(path, every_seconds=3600.0), kill_at=12)
    found = read_sealed(path)
    assert found is not None
    assert (found[1]["epoch"], found[1]["batch"]) == (1, 4)
    assert same(train(ADAMW, Checkpoint(path, every_seconds=3600.0)), train(ADAMW))


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "state.safetensors")
    first = train(ADAMW, place)
    assert same(train(ADAMW, place, kill_at=1), first)


SCRIPT = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch
torch.set_num_threads(1)
from train.test_checkpoint import ADAMW, Checkpoint, Hook, counting, fit, network, CROSS, TRAIN, VALIDATION
from tinypress.train.sealed import write_sealed
left, move = int(sys.argv[2]), os.replace
def killing(old, new):  # half of the kills come before the file is moved into place, half after
    global left
    left -= 1
    if left == 0 and int(sys.argv[2]) % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    move(old, new)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killing
place = Checkpoint(Path(sys.argv[1]) / "state.safetensors", every_seconds=0.0)
fitted = fit(network(), TRAIN, VALIDATION, CROSS, ADAMW, hooks=[counting(None)], checkpoint=place)
write_sealed(Path(sys.argv[1]) / "final", dict(fitted.model.state_dict()), {{}})
"""


@pytest.mark.slow
def test_sigkill_while_the_checkpoint_is_written(tmp_path: Path) -> None:
    whole = dict(train(ADAMW).state_dict())
    for steps in (4, 7, 5, 1000):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(steps)], capture_output=True, text=True
        )
        assert done.returncode == (0 if steps == 1000 else -signal.SIGKILL), done.stderr
        assert read_sealed(tmp_path / "state.safetensors") is not None
    found = read_sealed(tmp_path / "final")
    assert found is not None
    assert all(torch.equal(x, whole[name]) for name, x in found[0].items())


def test_a_damaged_checkpoint_is_only_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    place = Checkpoint(path, every_seconds=0.0)
    with pytest.raises(Killed):
        train(ADAMW, place, kill_at=7)
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        b"",
        b"{}" * 9,
    ):
        path.write_bytes(damaged)
        assert read_sealed(path) is None
        assert same(train(ADAMW, place), train(ADAMW))


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    train(ADAMW, Checkpoint(path))
    names = set(safetensors.torch.load(path.read_bytes()))
    assert {
        "order",
        "random",
        "model.drift",
        "best.conv.weight",
        "optimizer.0.exp_avg",
        "hook.0.mean",
    } <= names


@pytest.mark.parametrize("different", ["schedule", "network", "data", "work"])
def test_the_checkpoint_of_another_training_is_refused(different: str, tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "state.safetensors", every_seconds=0.0)
    with pytest.raises(Killed):
        train(ADAMW, place, kill_at=3)
    model, samples, schedule = network(), TRAIN, ADAMW
    if different == "schedule":
        schedule = replace(ADAMW, seed=1)
    elif different == "network":
        model.get_parameter("head.bias").detach()[0] += 1
    elif different == "data":
        samples = data(43, 7)
    else:
        place = replace(place, key="other")
    before = place.path.read_bytes()
    with pytest.raises(RunError, match=f"differs in {different}"):
        fit(model, samples, VALIDATION, CROSS, schedule, checkpoint=place)
    assert place.path.read_bytes() == before


def test_a_training_with_other_hooks_is_refused(tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "state.safetensors", every_seconds=0.0)
    with pytest.raises(Killed):
        train(ADAMW, place, kill_at=3)
    with pytest.raises(RunError, match=r"other tensors \('hook.0.mean'\)"):
        fit(network(), TRAIN, VALIDATION, CROSS, ADAMW, checkpoint=place)


class Strange(nn.Linear):
    def get_extra_state(self) -> str:
        return "text"

    def set_extra_state(self, state: str) -> None: ...


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no checkpoint can keep"):
        fit(Strange(2, 2), TRAIN, VALIDATION, CROSS, ADAMW, checkpoint=Checkpoint(tmp_path / "s"))
    with pytest.raises(InputError, match="negative"):
        Checkpoint(tmp_path, every_seconds=-1.0)
    with pytest.raises(InputError, match="Path"):
        Checkpoint(str(tmp_path))  # type: ignore[arg-type]


def test_sealed_tensors_come_back_and_a_swap_of_names_is_seen(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3), "b": torch.zeros(0), "c": torch.ones(2, 2, dtype=torch.bfloat16).t()}
    write_sealed(tmp_path / "x", tensors, {"n": 1.1, "text": "é"})
    found = read_sealed(tmp_path / "x")
    assert found is not None
    assert found[1] == {"n": 1.1, "text": "é"}
    assert all(
        torch.equal(found[0][name], x) and found[0][name].dtype == x.dtype for name, x in tensors.items()
    )
    raw = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(
        raw.replace(b'"n\\":1.1', b'"n\\":1.2').replace(b'n\\\\\\":1.1', b'n\\\\\\":1.2')
    )
    assert (tmp_path / "x").read_bytes() != raw
    assert read_sealed(tmp_path / "x") is None
    assert read_sealed(tmp_path / "missing") is None
