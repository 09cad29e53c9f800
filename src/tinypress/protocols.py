"""The shapes of the functions that can be exchanged: an engine's four techniques, a runtime's runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.facts import Compressed, QuantizedWeight


class Score(Protocol):
    """Decides which weights of one layer go: returns the layer with ``sparsity`` of its weights zeroed.

    A network is pruned globally by laying all its weights end to end as one layer.
    """

    def __call__(self, layer: nn.Module, sparsity: float) -> Compressed: ...


class Quantize(Protocol):
    """Turns the weights of one layer into packed integers."""

    def __call__(
        self,
        layer: nn.Module,
        bits: int = 8,
        *,
        scheme: Literal["symmetric", "affine"] = "symmetric",
        per_channel: bool = True,
    ) -> QuantizedWeight: ...


class Loss(Protocol):
    """Measures how far a student is from its teacher and from the labels; shapes [B, C], [B, C], [B]."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor: ...


class MakeLoss(Protocol):
    """Makes a distillation loss from its temperature and the weight ``alpha`` of the soft targets."""

    def __call__(self, temperature: float, alpha: float) -> Loss: ...


class Shrink(Protocol):
    """Removes ``ratio`` of the neurons of the layer called ``layer``, with all that hangs on them."""

    def __call__(
        self,
        model: nn.Module,
        layer: str,
        ratio: float,
        example_inputs: tuple[Tensor, ...],
        *,
        importance: str = "l2",
        calibration: tuple[Tensor, ...] | None = None,
        seed: int = 0,
    ) -> Compressed: ...


class Augment(Protocol):
    """Varies the inputs [N, ...] of samples so that their labels still hold, by numbers drawn from ``generator``."""

    def __call__(self, inputs: tuple[Tensor, ...], generator: torch.Generator) -> Sequence[Tensor]: ...


class Runner(Protocol):
    """A shipped file, opened in the runtime that will run it."""

    @property
    def runtime(self) -> str: ...

    def run(self, inputs: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
        """One forward pass over a batch; ``inputs`` in the order of the network's arguments."""
        ...
