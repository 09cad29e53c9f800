"""More training samples out of those that there are: copies that are varied as no label minds.

A small network that is taught on varied copies for long comes nearer to its teacher than one that sees the same
samples again (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent", arXiv:2106.05237).
The copies are made once, so that trainings can go on where they were killed and a teacher answers once for each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinypress.errors import DataError
from tinypress.protocols import Augment
from tinypress.task import Split


def augmented(split: Split, augment: Augment, copies: int, seed: int) -> Split:
    """``copies`` times the samples of ``split``: as they are, and then each time as ``augment`` varies them.

    Raises:
        DataError: ``augment`` fails, or returns anything but inputs of the same shapes and dtypes, all finite.
    """
    call = f"augment({[tuple(x.shape) for x in split.inputs]})"
    generator = torch.Generator().manual_seed(seed)
    parts = [split.inputs]
    for _ in range(copies - 1):
        try:
            made = augment(tuple(x.clone() for x in split.inputs), generator)
        except Exception as error:  # whatever the user's function raises
            raise DataError(
                call, f"it failed: {type(error).__name__}: {error}", "Mend the task's augment()"
            ) from error
        problem = _problem(split.inputs, made)
        if problem is not None:
            raise DataError(call, problem, "Return the inputs varied, of the same shapes and dtypes")
        parts.append(tuple(made))
    return Split(
        tuple(torch.cat(column) for column in zip(*parts, strict=True)),
        torch.cat([split.targets] * copies),
        None if split.groups is None else torch.cat([split.groups] * copies),
    )


def _problem(inputs: tuple[Tensor, ...], made: object) -> str | None:
    if not isinstance(made, tuple | list) or not all(isinstance(x, Tensor) for x in made):
        return f"it returned a {type(made).__name__}, not a tuple of tensors"
    if len(made) != len(inputs):
        return f"it returned {len(made)} inputs of {len(inputs)}"
    for place, (was, now) in enumerate(zip(inputs, made, strict=True)):
        if (was.shape, was.dtype) != (now.shape, now.dtype):
            return f"input {place} was {tuple(was.shape)} of {was.dtype} and is {tuple(now.shape)} of {now.dtype}"
        if now.is_floating_point() and not bool(torch.isfinite(now).all()):
            return f"input {place} holds NaN or infinity"
    return None
