"""Tries, on the spot, everything that the module builds on: one function for each prerequisite.

Each returns what it saw, in a few words, or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn

from tinypress import find_task
from tinypress_course.module import Module


@dataclass(frozen=True)
class Tried:
    """One prerequisite: what it is used for, whether it is there, and what was seen."""

    name: str
    used_for: str
    there: bool
    seen: str


def try_all(module: Module) -> Iterator[Tried]:
    """Try each prerequisite of ``module``, one by one."""
    for each in module.prerequisites:
        yield _tried(each.name, each.used_for)


def _tried(name: str, used_for: str) -> Tried:
    attempt = TRIES.get(name)
    if attempt is None:
        return Tried(name, used_for, False, "this version of tito does not know how to try it")
    try:
        return Tried(name, used_for, True, attempt())
    except Exception as error:  # whatever is missing is told
        return Tried(name, used_for, False, f"{type(error).__name__}: {error}")


def setup() -> str:
    """PyTorch, the toolkit, and the recordings with the network trained on them."""
    watch = find_task("watch")
    assert watch.train is not None
    return f"torch {version('torch')}, tinypress {version('tinypress')}, {len(watch.train)} windows of motion"


def tensors() -> str:
    """Shapes, sorting, selecting along an axis, data types."""
    x = torch.tensor([[3.0, -1.0], [0.0, 2.0]])
    _expect(x.flatten().abs().argsort().tolist() == [2, 1, 3, 0], "argsort does not sort")
    _expect(x.amax(1).tolist() == [3.0, 2.0], "amax does not run along an axis")
    _expect(x.index_select(0, torch.tensor([1])).shape == (1, 2), "index_select does not select rows")
    _expect(x.round().to(torch.int32).dtype == torch.int32, "there is no int32")
    return "argsort, amax, index_select, int32"


def layers() -> str:
    """What the axes of weights mean, and what a batch norm keeps."""
    _expect(nn.Linear(3, 2).weight.shape == (2, 3), "a Linear's weight is not [out, in]")
    _expect(nn.Conv1d(3, 4, 5).weight.shape == (4, 3, 5), "a Conv1d's weight is not [out, in, kernel]")
    norm = nn.BatchNorm1d(4).eval()
    _expect(norm.running_mean is not None and len(norm.running_mean) == 4, "a batch norm has no mean")
    return "Linear [out, in], Conv1d [out, in, kernel], BatchNorm1d"


def networks() -> str:
    """Modules inside modules, parameters and buffers, a forward pass."""
    network = nn.Sequential(nn.Conv1d(6, 4, 5), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 3)).eval()
    names = [name for name, _ in network.named_modules()]
    _expect(names == ["", "0", "1", "2", "3"], "named_modules lists other modules")
    _expect(network(torch.zeros(2, 6, 8)).shape == (2, 3), "a forward pass gives another shape")
    parameters, buffers = len(list(network.parameters())), len(list(network.buffers()))
    return f"{parameters} parameters and {buffers} buffers by name, a forward pass"


def training() -> str:
    """A loss that falls when an optimizer follows its gradient."""
    torch.manual_seed(0)
    network, x = nn.Linear(4, 2), torch.randn(32, 4)
    labels = (x[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    _expect(losses[-1] < 0.5 * losses[0], "training does not lower the loss")
    return f"cross entropy from {losses[0]:.2f} to {losses[-1]:.2f} in 20 steps of AdamW"


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(f"{otherwise}: install the versions in requirements/constraints.txt")


TRIES: dict[str, Callable[[], str]] = {
    "00_setup": setup,
    "01_tensor": tensors,
    "03_layers": layers,
    "04_networks": networks,
    "09_training": training,
}
