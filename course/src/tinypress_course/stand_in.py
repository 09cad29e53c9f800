"""Facts with the toolkit's fields, for a process in which the toolkit cannot be imported.

Only containers: nothing here computes, so that nothing here can be copied as a solution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Change:
    """One thing that a technique changed in one layer."""

    layer: str
    what: str
    was: float | int | str
    now: float | int | str


@dataclass(frozen=True)
class Compressed:
    """A new network and the facts of what changed."""

    model: nn.Module
    changes: tuple[Any, ...] = ()
    notes: tuple[Any, ...] = ()
    pruned: frozenset[str] = frozenset()
    plan: Any = None


@dataclass(frozen=True)
class QuantizedWeight:
    """Packed integers of one weight tensor with what reads them back."""

    packed: Tensor
    shape: tuple[int, ...]
    bits: int
    scheme: str
    axis: int | None
    scale: Tensor
    zero_point: Tensor
    group_size: int | None = None
    input_scale: Tensor | None = None


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers training may change."""

    total: int
    trainable: int
    by_layer: Mapping[str, int]


@dataclass(frozen=True)
class ModelSize:
    """Bytes of the values alone."""

    total_bytes: int
    parameter_bytes: int
    buffer_bytes: int
    by_dtype: Mapping[str, int]
    by_layer: Mapping[str, int]


@dataclass(frozen=True)
class Split:
    """Labelled samples, one tensor per argument of the network."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Any) -> Split:
        """The samples at ``rows``."""
        groups = None if self.groups is None else self.groups[rows]
        return Split(tuple(x[rows] for x in self.inputs), self.targets[rows], groups)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    epochs: int
    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 1e-4
    patience: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The steps of one candidate, as data."""

    name: str
    about: str = ""
    role: str = "candidate"
    control_of: str | None = None
    steps: tuple[Any, ...] = ()
    ship: tuple[str, ...] = ("onnx",)


def press(task: Any, recipes: Any, out: Any, **settings: Any) -> Any:
    """There is no press without the toolkit."""
    raise RuntimeError("press needs tinypress, which is not here")
