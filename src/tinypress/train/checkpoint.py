"""Everything that the next step of a training depends on, in one file: a killed training goes on to the same bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError, RunError
from tinypress.train.hooks import Hook, states
from tinypress.train.processes import Processes
from tinypress.train.sealed import read_sealed, write_sealed


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state, and how many seconds of work may be lost; 0 keeps every step.

    ``key`` stands for what the loop cannot see: what the objective and the hooks were made of.
    """

    path: Path
    every_seconds: float = 20.0
    key: str = ""

    def __post_init__(self) -> None:
        call = f"Checkpoint({self.path!r}, every_seconds={self.every_seconds!r})"
        if not isinstance(self.path, Path):
            raise InputError(call, "path is no Path", "Give a pathlib.Path")
        if not self.every_seconds >= 0:
            raise InputError(call, "every_seconds is negative", "Give 0 or more")

    @property
    def folder(self) -> Path:
        """Where work that is made of many trainings keeps what is finished."""
        return self.path.with_suffix(".parts")


@dataclass
class State:
    """Where a training stands: ``batch`` batches of ``epoch`` (from 1) are done.

    ``order`` is the state of the generator of the data's order when the epoch began.
    """

    order: Tensor
    best_state: dict[str, Any]
    epoch: int = 1
    batch: int = 0
    best: float = math.inf
    best_epoch: int = 0


@dataclass(frozen=True)
class Moving:
    """Everything that a step changes besides ``State``."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    parameters: Sequence[nn.Parameter]
    hooks: Sequence[Hook]
    processes: Processes
    facts: Mapping[str, Any] = field(default_factory=dict)


def check_can_be_kept(call: str, model: nn.Module) -> None:
    """Refuse a network with state that is no tensor.

    Raises:
        ModelError: names it.
    """
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ModelError(
                call,
                f"{name!r} in the network's state is a {type(value).__name__}, which no checkpoint can keep",
                "Keep it in a buffer, or train without a checkpoint",
            )


def save_state(path: Path, state: State, moving: Moving) -> None:
    """Write the training's state; every process must call it, and the first writes."""
    random = moving.processes.gather(torch.get_rng_state())
    device = moving.processes.device
    tensors = {"order": state.order, "random": random}
    if device.type == "cuda":
        tensors["cuda"] = moving.processes.gather(torch.cuda.get_rng_state(device))
    tensors |= {f"model.{name}": x for name, x in _tensors_of(moving.model).items()}
    tensors |= {f"best.{name}": x for name, x in state.best_state.items()}
    tensors |= {f"hook.{name}": x for name, x in states(moving.hooks).items()}
    for place, parameter in enumerate(moving.parameters):
        kept = moving.optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{place}.{key}": x for key, x in kept.items() if isinstance(x, Tensor)}
    facts = {
        **moving.facts,
        "epoch": state.epoch,
        "batch": state.batch,
        "best": None if math.isinf(state.best) else state.best,
        "best_epoch": state.best_epoch,
        "rate": moving.optimizer.param_groups[0]["lr"],
    }
    if moving.processes.rank == 0:
        write_sealed(path, tensors, facts)
    moving.processes.wait()


def restore_state(call: str, path: Path, state: State, moving: Moving) -> None:
    """Bring ``state`` and ``moving`` to where the checkpoint stands.

    Where there is none, or it is damaged, nothing changes: it was only a copy, and the training begins again.

    Raises:
        RunError: the checkpoint is that of another training.
    """
    found = read_sealed(path)
    if found is None:
        return
    tensors, facts = found
    differs = sorted(key for key, value in moving.facts.items() if facts.get(key) != value)
    if differs:
        raise RunError(
            call,
            f"the checkpoint {path.name} is of a training that differs in {', '.join(differs)}",
            "Choose another file, or remove it to begin again",
        )
    live = {f"model.{name}": x for name, x in _tensors_of(moving.model).items()}
    live |= {f"hook.{name}": x for name, x in states(moving.hooks).items()}
    live |= {f"best.{name}": x for name, x in state.best_state.items()}
    strange = sorted(
        name for name, x in live.items() if name not in tensors or tensors[name].shape != x.shape
    ) + sorted(name for name in tensors if name.startswith(("model.", "hook.", "best.")) and name not in live)
    if strange:
        raise RunError(
            call,
            f"the checkpoint {path.name} is of a training with other tensors ({strange[0]!r})",
            "Choose another file, or remove it to begin again",
        )
    with torch.no_grad():
        for name, x in live.items():
            if not name.startswith("best."):
                x.copy_(tensors[name])
    for place, parameter in enumerate(moving.parameters):
        prefix = f"optimizer.{place}."
        kept = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        if kept:
            moving.optimizer.state[parameter] = {
                key: x if key == "step" else x.to(parameter.device) for key, x in kept.items()
            }
    moving.optimizer.param_groups[0]["lr"] = facts["rate"]
    for name, x in state.best_state.items():
        state.best_state[name] = tensors[f"best.{name}"].to(x.device)
    # PyTorch crashes on a state that is a part of a larger tensor
    torch.set_rng_state(tensors["random"][moving.processes.rank].clone())
    if moving.processes.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"][moving.processes.rank].clone(), moving.processes.device)
    state.order = tensors["order"]
    state.epoch, state.batch = facts["epoch"], facts["batch"]
    state.best = math.inf if facts["best"] is None else facts["best"]
    state.best_epoch = facts["best_epoch"]


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, those that ``state_dict`` leaves out too; one that is shared comes once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
