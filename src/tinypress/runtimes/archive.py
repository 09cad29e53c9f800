"""Archives in PyTorch, on the stock network that the caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.archive import read_archive
from tinypress.errors import InputError, ModelError


@dataclass(frozen=True)
class ArchiveRunner:
    """The rebuilt network in evaluation mode; integer weights are already dequantized."""

    model: nn.Module
    runtime: str = "torch"

    def run(self, inputs: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
        """One forward pass; returns the network's only output, [B, ...].

        Raises:
            InputError: the network refuses the inputs.
            ModelError: its output is not one tensor.
        """
        shapes = [tuple(array.shape) for array in inputs]
        try:
            with torch.inference_mode():
                # copies, because a network may work in place and an array may be read-only
                output = self.model(*(torch.from_numpy(np.array(array)) for array in inputs))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise InputError(
                f"run({shapes})", f"PyTorch refused: {problem}", "Check shapes and dtypes"
            ) from error
        if not isinstance(output, Tensor):
            raise ModelError(
                f"run({shapes})",
                f"the network returns a {type(output).__name__}, not one tensor",
                "Wrap it in a module that returns one of its outputs",
            )
        result: NDArray[np.generic] = output.numpy()
        return result


def open_archive(path: Path, stock: nn.Module, threads: int = 1) -> ArchiveRunner:
    """Open an archive on a copy of ``stock`` to run it in PyTorch.

    PyTorch keeps one number of threads for the whole process: this call sets it, so runners that are open at
    the same time share the number of the one that was opened last.

    Raises:
        InputError: ``threads`` is not a whole number from 1.
        ArtifactError: as ``read_archive``.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(
            f"open_archive({path.name}, threads={threads!r})", "threads is below 1", "Give 1 or more"
        )
    model = read_archive(path, stock).model
    torch.set_num_threads(threads)
    return ArchiveRunner(model)
