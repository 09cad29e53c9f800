"""What the user brings: a trained network, labelled data in three splits, a loss and a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.errors import DataError, TaskError
from tinypress.facts import Note
from tinypress.protocols import Augment

Metric = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Split:
    """Labelled samples. ``inputs`` holds one tensor per argument of the network, all of N samples;
    ``targets`` has N rows; ``groups`` [N] tells which samples belong together (windows of one recording)."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        _check_kinds(self.inputs, self.targets, self.groups)
        call = f"Split(inputs={[tuple(x.shape) for x in self.inputs]}, targets={tuple(self.targets.shape)})"
        if not self.inputs or len(self) == 0:
            raise DataError(call, "there are no samples", "Give at least one sample in every split")
        counts = {len(x) for x in self.inputs} | {len(self.targets)}
        if self.groups is not None:
            counts.add(len(self.groups))
        if len(counts) != 1:
            raise DataError(
                call,
                f"inputs, targets and groups differ in length: {sorted(counts)}",
                "Give one row per sample",
            )
        for position, values in enumerate(self.inputs):
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise DataError(call, f"input {position} holds NaN or infinity", "Clean the data first")

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Tensor | slice) -> Split:
        """The samples at ``rows``."""
        groups = None if self.groups is None else self.groups[rows]
        return Split(tuple(x[rows] for x in self.inputs), self.targets[rows], groups)


def _check_kinds(inputs: object, targets: object, groups: object) -> None:
    if not isinstance(inputs, tuple):
        remedy = "Give a tuple with one tensor per argument of forward(), such as (x,)"
        raise DataError(f"Split(inputs={type(inputs).__name__})", "inputs is not a tuple", remedy)
    named = [*((f"inputs[{position}]", x) for position, x in enumerate(inputs)), ("targets", targets)]
    for name, values in [*named, *([] if groups is None else [("groups", groups)])]:
        if not isinstance(values, Tensor) or values.dim() == 0:
            given = "a tensor without rows" if isinstance(values, Tensor) else f"a {type(values).__name__}"
            raise DataError(
                f"Split({name}=...)", f"{name} is {given}", "Give a tensor with one row per sample"
            )


def split_from(batches: Iterable[Any], groups: Tensor | None = None) -> Split:
    """Collect an iterable of ``(inputs, targets)`` batches, such as a DataLoader, into a ``Split``.

    ``inputs`` of a batch is a tensor or a tuple of tensors.

    Raises:
        DataError: the iterable is empty, or a batch is no pair of tensors shaped as those before.
    """
    inputs: list[tuple[Tensor, ...]] = []
    targets: list[Tensor] = []
    if not isinstance(batches, Iterable):
        raise DataError(
            f"split_from({batches!r})",
            f"it is a {type(batches).__name__}",
            "Give a DataLoader or a list of batches",
        )
    for count, batch in enumerate(batches, start=1):
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise DataError("split_from(batches)", f"batch {count} is not a pair", "Yield (inputs, targets)")
        x, y = batch
        row = tuple(x) if isinstance(x, tuple | list) else (x,)
        call = f"split_from(batches), batch {count}"
        for value in (*row, y):
            if not isinstance(value, Tensor) or value.dim() == 0:
                given = "a tensor without rows" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise DataError(call, f"it holds {given}", "Yield tensors with one row per sample")
        shapes = [tuple(value.shape[1:]) for value in (*row, y)]
        first = shapes if not targets else [tuple(value.shape[1:]) for value in (*inputs[0], targets[0])]
        if shapes != first:
            raise DataError(
                call, f"its samples have shapes {shapes}, those of batch 1 {first}", "Pad them alike"
            )
        inputs.append(row)
        targets.append(y)
    if not targets:
        raise DataError("split_from(batches)", "the loader is empty", "Give at least one batch")
    columns = zip(*inputs, strict=True)
    return Split(tuple(torch.cat(column) for column in columns), torch.cat(targets), groups)


@dataclass(frozen=True)
class Training:
    """How a network of this task is trained: enough to train it again for the controls."""

    max_epochs: int = 60
    patience: int = 8
    recovery_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    recovery_learning_rate: float = 5e-4
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Companions:
    """The files that ship beside a network, by name, such as its config and its tokenizer; and what is to be said of
    them."""

    files: Mapping[str, bytes]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Task:
    """A trained network with its data. ``train`` and ``loss`` may be missing: then nothing can be retrained.

    ``loss(outputs, targets)`` returns a scalar tensor; ``metric`` is the name of a built-in metric or a
    function ``(outputs, targets) -> float``; ``build()`` returns the untrained network, for the controls.
    ``tolerance`` is the acceptable loss in quality: points for accuracy, else the metric's unit.
    ``augment(inputs, generator)`` varies inputs as their labels do not mind; steps that ask for ``copies`` train on
    what it makes.
    ``companions(model)`` gives the files that ship beside a pressed network: each artifact is then a folder of its
    own, and their bytes count. With ``free_length`` the second dimension of every input is free in an ONNX file whose
    activations are float, one length for all: texts of any length.
    """

    name: str
    model: nn.Module
    example_inputs: tuple[Tensor, ...]
    validation: Split
    test: Split
    metric: str | Metric
    train: Split | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    build: Callable[[], nn.Module] | None = None
    higher_is_better: bool = True
    tolerance: float = 1.0
    training: Training = field(default_factory=Training)
    classes: tuple[str, ...] = ()
    about: str = ""
    augment: Augment | None = None
    companions: Callable[[nn.Module], Companions] | None = None
    free_length: bool = False

    def __post_init__(self) -> None:
        call = f"Task({self.name!r})"
        if not isinstance(self.model, nn.Module):
            raise TaskError(call, f"model is a {type(self.model).__name__}", "Give a torch.nn.Module")
        if not isinstance(self.example_inputs, tuple) or not all(
            isinstance(x, Tensor) and x.dim() for x in self.example_inputs
        ):
            raise TaskError(
                call,
                "example_inputs is not a tuple of tensors with a batch dimension",
                "Give one tensor [B, ...] per argument of forward(), such as (x,)",
            )
        if not self.example_inputs:
            raise TaskError(call, "example_inputs is empty", "Give one tensor per argument of forward()")
        for split, name in ((self.train, "train"), (self.validation, "validation"), (self.test, "test")):
            if split is None and name == "train":
                continue
            if not isinstance(split, Split):
                raise TaskError(
                    call, f"{name} is a {type(split).__name__}", "Give a Split; split_from(loader) makes one"
                )
            for position, (given, example) in enumerate(
                zip(split.inputs, self.example_inputs, strict=False), start=1
            ):
                if given.dtype != example.dtype:
                    raise TaskError(
                        call,
                        f"argument {position} is {given.dtype} in {name} but {example.dtype} in example_inputs",
                        "Give samples and example of one dtype",
                    )
                if given.shape[1:] != example.shape[1:]:
                    raise TaskError(
                        call,
                        f"argument {position} has shape {tuple(given.shape[1:])} in {name} "
                        f"but {tuple(example.shape[1:])} in example_inputs",
                        "Give samples and example of one shape",
                    )
            if len(split.inputs) != len(self.example_inputs):
                raise TaskError(
                    call,
                    f"{name} gives {len(split.inputs)} inputs, example_inputs {len(self.example_inputs)}",
                    "Give one tensor per argument of forward()",
                )
