"""Two processes follow one at the same batch size; what needs Accelerate says so where it is missing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tinypress.errors import MissingExtra
from tinypress.task import Split
from tinypress.train import Checkpoint, Processes, Schedule, accelerated, fit, supervised
from tinypress.train.sealed import read_sealed

SCHEDULE = Schedule(epochs=5, learning_rate=0.01, batch_size=9, warmup_steps=3)
STEPS = 5 * 10  # 87 samples by 9: the last batch has 6


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))


def data(samples: int, seed: int) -> Split:
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(seed))
    return Split((x,), torch.bucketize(x.sum(1), torch.tensor([-1.0, 1.0])))


def train(
    processes: Processes | None = None, checkpoint: Checkpoint | None = None
) -> dict[str, torch.Tensor]:
    cross = supervised(nn.functional.cross_entropy)
    fitted = fit(
        network(), data(87, 1), data(1100, 2), cross, SCHEDULE, processes=processes, checkpoint=checkpoint
    )
    assert fitted.steps == STEPS
    return dict(fitted.model.state_dict())


SCRIPT = f"""
import os, signal, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch
torch.set_num_threads(1)
from train.test_processes import Checkpoint, accelerated, read_sealed, train
from tinypress.train import loop
from tinypress.train.sealed import write_sealed
processes = accelerated(cpu=True)
kill_at = int(sys.argv[2])
save = loop.save_state
def saving(path, state, moving):
    save(path, state, moving)
    if (state.epoch - 1) * 10 + state.batch >= kill_at > 0:
        os.kill(os.getpid(), signal.SIGKILL)
loop.save_state = saving
folder = Path(sys.argv[1])
weights = train(processes, Checkpoint(folder / "state", every_seconds=0.0))
write_sealed(folder / f"rank{{processes.rank}}", weights, {{"count": processes.count}})
"""


def launch(folder: Path, kill_at: int = 0) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), str(kill_at)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    return [process.wait(120) for process in running]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("two")
    assert launch(folder) == [0, 0]
    found = [read_sealed(folder / f"rank{rank}") for rank in range(2)]
    assert all(part is not None and part[1] == {"count": 2} for part in found)
    return [part[0] for part in found if part is not None]


def test_two_processes_follow_one_at_the_same_batch_size(two: list[dict[str, torch.Tensor]]) -> None:
    alone = train()
    start = network().state_dict()
    for name, x in alone.items():
        assert torch.equal(two[0][name], two[1][name])
        assert float((two[0][name] - x).abs().max()) <= 1e-5
        assert float((x - start[name]).abs().max()) > 1e-3


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_to_the_same_bits(
    two: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    assert any(launch(tmp_path, kill_at=23))
    assert not (tmp_path / "rank0").exists()
    assert launch(tmp_path) == [0, 0]
    found = read_sealed(tmp_path / "rank0")
    assert found is not None
    assert all(torch.equal(x, two[0][name]) for name, x in found[0].items())


def test_without_accelerate_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtra, match=r"tinypress\[accelerate\]"):
        accelerated()
