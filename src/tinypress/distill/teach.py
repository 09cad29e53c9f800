"""Trains a student on its teacher's outputs. The data are fixed, so the teacher is asked once for each sample."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from tinypress.distill.cache import ask_teacher
from tinypress.distill.features import captured, require_captured
from tinypress.distill.lesson import Lesson, OnBoth, Term, WeightedSum
from tinypress.distill.losses import DistillationLoss
from tinypress.errors import ModelError
from tinypress.facts import Change, Compressed
from tinypress.files import sha256
from tinypress.protocols import Loss
from tinypress.task import Split
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.hooks import MakeHook
from tinypress.train.loop import Objective, Progress, Schedule, fit, mean_objective, silent
from tinypress.train.processes import Processes


def train_with_distillation(
    student: nn.Module | Compressed,
    teacher: nn.Module,
    train: Split,
    validation: Split,
    *,
    loss: Loss | Term | None = None,
    features: Mapping[str, str] | None = None,
    schedule: Schedule | None = None,
    after_step: Callable[[nn.Module], Callable[[], None]] | None = None,
    hooks: Sequence[MakeHook] = (),
    cache: Path | None = None,
    checkpoint: Checkpoint | None = None,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> Compressed:
    """Train a copy of ``student`` on the outputs of ``teacher`` and the labels; neither is changed.

    Args:
        loss: ``loss(student, teacher, labels)``, by default ``DistillationLoss()``; or a ``WeightedSum`` of several.
            What it has to learn itself, such as a projector, is learnt in a copy that is thrown away.
        features: pairs of layers {student's path: teacher's path} whose outputs the loss compares.
        schedule: by default 10 epochs at a learning rate of 0.001.
        after_step: what must hold after each step, such as ``keep_zeros`` for a pruned student.
        cache: folder that keeps the teacher's outputs for the next call with this teacher and these data.
        hooks, checkpoint, processes: as in ``tinypress.train.fit``.

    Returns:
        The student; the steps taken, and for a ``WeightedSum`` each part's mean on validation before and after.

    Raises:
        InputError: there is no such layer, or the loss cannot be computed on these shapes.
        ModelError: student and teacher give outputs of different shape, or the loss became NaN.
    """
    before = student if isinstance(student, Compressed) else Compressed(student)
    term = loss if isinstance(loss, Term) else OnBoth(loss if loss is not None else DistillationLoss())
    schedule = schedule if schedule is not None else Schedule(epochs=10, learning_rate=1e-3)
    pairs = dict(features) if features is not None else {}
    if processes is not None and processes.device.type != "cpu":
        teacher = copy.deepcopy(teacher).to(processes.device)
    taught = _with_teacher(train, teacher, list(pairs.values()), cache)
    judged = _with_teacher(validation, teacher, list(pairs.values()), cache)
    pupil = copy.deepcopy(before.model).eval()
    given = len(train.inputs)
    shape = ask_teacher(pupil, tuple(x[:1] for x in train.inputs))[0].shape[1:]
    if not isinstance(loss, Term) and shape != taught.inputs[given].shape[1:]:
        raise ModelError(
            f"train_with_distillation({type(pupil).__name__}, {type(teacher).__name__})",
            f"the student's outputs are {tuple(shape)}, the teacher's {tuple(taught.inputs[given].shape[1:])}",
            "Give the student the teacher's head",
        )

    def lesson(model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> Lesson:
        own, answers = inputs[:given], inputs[given:]
        with captured(model, list(pairs)) as found:
            output = model(*own)
        require_captured(f"train_with_distillation({type(model).__name__})", found, list(pairs))
        both = {name: (found[name], x) for name, x in zip(pairs, answers[1:], strict=True)}
        return Lesson(output, answers[0], targets, own, both)

    def objective(model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        if isinstance(model, _Learning):
            value: Tensor = model.term(lesson(model.student, inputs, targets))
        else:
            value = term(lesson(model, inputs, targets))
        return value

    learns = any(parameter.requires_grad for parameter in term.parameters())
    start = _Learning(pupil, term) if learns else pupil
    fitted = fit(
        start,
        taught,
        judged,
        objective,
        schedule,
        after_step=None if after_step is None else _keep_of(after_step),
        hooks=[_hook_of(hook) for hook in hooks],
        checkpoint=None
        if checkpoint is None
        else replace(checkpoint, key=f"{checkpoint.key} {_described(term)}"),
        processes=processes,
        progress=progress,
        what="distilling",
    )
    changes = [Change("", "distillation steps", 0, fitted.steps)]
    if isinstance(term, WeightedSum):
        was, now = (_parts(model, term, lesson, judged) for model in (start, fitted.model))
        changes += [Change("", f"loss part {name!r}", was[name], now[name]) for name in was]
    return Compressed(
        _student_of(fitted.model), (*before.changes, *changes), before.notes, before.pruned, before.plan
    )


def _described(term: Term) -> str:
    """The losses and their settings, so that a training goes on with those that it began with."""
    parts = []
    for module in term.modules():
        own = sorted((name, x) for name, x in vars(module).items() if name[0] != "_" and name not in _IDLE)
        plain = [(name, x) for name, x in own if isinstance(x, int | float | str | dict)]
        parts.append(f"{type(module).__qualname__}{plain}")
    return sha256(" ".join(parts).encode())[:16]


_IDLE = frozenset({"training", "values", "losses"})  # what no loss depends on, or is described by itself


class _Learning(nn.Module):
    """A student with a loss that learns too, such as one with a projector."""

    def __init__(self, student: nn.Module, term: Term) -> None:
        super().__init__()
        self.student, self.term = student, term

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the student says."""
        output: Tensor = self.student(*inputs)
        return output


def _keep_of(
    after_step: Callable[[nn.Module], Callable[[], None]],
) -> Callable[[nn.Module], Callable[[], None]]:
    return lambda model: after_step(_student_of(model))


def _hook_of(make: MakeHook) -> MakeHook:
    return lambda model, total: make(_student_of(model), total)


def _student_of(model: nn.Module) -> nn.Module:
    """The student, where the network in training holds a learning loss beside it."""
    return model.student if isinstance(model, _Learning) else model


def _parts(
    model: nn.Module, term: WeightedSum, lesson: Callable[..., Lesson], split: Split
) -> dict[str, float]:
    """Each part's mean over ``split``."""
    owner = model.term if isinstance(model, _Learning) else term
    student = _student_of(model)
    assert isinstance(owner, WeightedSum)

    def part(name: str) -> Objective:
        return lambda model, inputs, targets: owner.parts(lesson(model, inputs, targets))[name]

    return {name: mean_objective(student, split, part(name)) for name in owner.weights}


def _with_teacher(split: Split, teacher: nn.Module, layers: Sequence[str], cache: Path | None) -> Split:
    """``split`` with the teacher's outputs, and those of its ``layers``, as more input columns."""
    answers = ask_teacher(teacher, split.inputs, layers, cache=cache)
    return Split((*split.inputs, *answers), split.targets, split.groups)
