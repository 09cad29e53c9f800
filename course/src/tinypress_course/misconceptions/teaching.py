"""Mistakes that people make when they train a student on its teacher's answers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinypress import DistillationLoss
from tinypress_course.checks import watched
from tinypress_course.checks.base import Answer, Case
from tinypress_course.checks.watched import Watched, watch
from tinypress_course.kit import Compressed, Schedule, Split
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.models import Plain


def _as_they_are(logits: Tensor) -> Tensor:
    return logits


def _shuffled(schedule: Schedule, epoch: int, samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * schedule.seed + epoch)
    return torch.randperm(samples, generator=generator)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """A training with places for mistakes; with none of them it agrees with the statement."""

    copied: bool = True
    teacher_mode: bool | None = False  # in training mode; None leaves it as it came
    teacher_copied: bool = True
    teacher_frozen: bool = True
    teacher_taught: bool = False
    taught: Callable[[Tensor], Tensor] = _as_they_are
    swapped: bool = False
    shifted: bool = False  # the teacher's answers of the samples as they lie, beside shuffled ones
    labels: Callable[[Tensor, Tensor], Tensor] = lambda labels, taught: labels
    order: Callable[[Schedule, int, int], Tensor] = _shuffled
    batch: Callable[[Schedule, int], int] = lambda schedule, samples: schedule.batch_size
    last_batch: bool = True
    epochs: Callable[[int], int] = lambda epochs: epochs
    rate: Callable[[float], float] = lambda rate: rate
    learns: bool = True
    zeroed: bool = True
    modes: Literal["each epoch", "once", "never"] = "each epoch"
    judged_in_training: bool = False
    judged_on_train: bool = False
    judges: bool = True
    better: Callable[[float, float], bool] = lambda value, best: value < best
    returns: Literal["best", "last", "student"] = "best"
    in_training: bool = False
    held: Literal["each step", "each epoch", "before", "never", "anew", "student", "late"] = "each step"
    accepts: Callable[[float], bool] = math.isfinite
    own_loss: bool = False


def _teach(
    student: nn.Module,
    teacher: nn.Module,
    train: Split,
    validation: Split,
    *,
    loss: Any = None,
    schedule: Schedule | None = None,
    after_step: Callable[[nn.Module], Callable[[], None]] | None = None,
    how: _Training,
) -> Compressed:
    given = student
    if loss is None or how.own_loss:
        loss = DistillationLoss()
    schedule = schedule if schedule is not None else Schedule(epochs=10, learning_rate=1e-3)
    teacher = copy.deepcopy(teacher) if how.teacher_copied else teacher
    if how.teacher_mode is not None:
        teacher.train(how.teacher_mode)
    student = copy.deepcopy(student) if how.copied else student
    learning = [*student.parameters(), *(teacher.parameters() if how.teacher_taught else ())]
    optimizer = torch.optim.SGD(learning, lr=how.rate(schedule.learning_rate), momentum=0.7, foreach=False)
    keep = None
    if after_step is not None and how.held not in ("never", "anew", "late"):
        keep = after_step(given if how.held == "student" else student)
    best, best_state = (-math.inf if how.better(1, 0) else math.inf), _state(student)

    def value_of(split: Split, rows: Tensor | slice, answers_of: Tensor | slice) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not how.teacher_frozen):
            taught = how.taught(teacher(split.inputs[0][answers_of]))
        says, labels = student(split.inputs[0][rows]), how.labels(split.targets[rows], taught)
        value: Tensor = loss(taught, says, labels) if how.swapped else loss(says, taught, labels)
        return value

    samples = len(train)
    size = how.batch(schedule, samples)
    if how.modes == "once":
        student.train()
    for epoch in range(how.epochs(schedule.epochs)):
        if how.modes == "each epoch":
            student.train()
        rows = how.order(schedule, epoch, samples)
        for start in range(0, samples if how.last_batch else samples // size * size, size):
            some = rows[start : start + size]
            value = value_of(train, some, slice(start, start + size) if how.shifted else some)
            if not how.accepts(value.item()):
                raise ValueError(f"the loss is {value.item()}")
            if how.zeroed:
                optimizer.zero_grad()
            if after_step is not None and how.held == "anew":
                keep = after_step(student)
            if keep is not None and how.held == "before":
                keep()
            if how.learns:
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if after_step is not None and keep is None and how.held == "late":
                keep = after_step(student)
            if keep is not None and how.held in ("each step", "anew", "student", "late"):
                keep()
        if keep is not None and how.held == "each epoch":
            keep()
        student.train(how.judged_in_training)
        split = train if how.judged_on_train else validation
        if how.judges:
            with torch.no_grad():
                reached = value_of(split, slice(None), slice(None)).item()
            if how.better(reached, best):
                best, best_state = reached, _state(student)
    if how.returns == "best" and how.judges:
        student.load_state_dict(best_state)
    came = given if how.returns == "student" else student
    return Compressed(came.train(how.in_training))


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


Finding = Callable[[Watched], Plain]


def _shown(*findings: Finding) -> Callable[[Case, Answer], Plain]:
    def reads(case: Case, answer: Answer) -> Plain:
        seen = watch(case, answer)
        return [finding(seen) for finding in findings]

    return reads


def _m(name: str, says: str, *findings: Finding, **mistake: Any) -> Misconception:
    implementation = partial(_teach, how=_Training(**mistake))
    return Misconception("train_with_distillation", name, says, implementation, reads=_shown(*findings))


MISCONCEPTIONS: tuple[Misconception, ...] = (
    _m(
        "student changed",
        "You train the student that came in: whoever wants to compare before and after has lost the before.",
        watched.changed,
        copied=False,
    ),
    _m(
        "teacher in training mode",
        "The teacher answers in training mode: dropout makes it stutter, and its batch norm looks at each batch.",
        watched.teacher_given,
        teacher_mode=True,
    ),
    _m(
        "teacher's mode left as it came",
        "The teacher answers in the mode in which it came. Nobody promised that this is evaluation mode.",
        watched.teacher_given,
        teacher_mode=None,
    ),
    _m(
        "teacher's averages changed",
        "The teacher runs in training mode, which moves its batch norm's averages: it is not as it was.",
        watched.changed,
        teacher_mode=None,
        teacher_copied=False,
    ),
    _m(
        "teacher taught",
        "The teacher is trained too: its answers drift towards the student's instead of the other way.",
        watched.changed,
        teacher_taught=True,
        teacher_copied=False,
        teacher_frozen=False,
    ),
    _m(
        "gradient into the teacher",
        "The teacher's answers carry a gradient: it is computed for nothing, and an optimizer could follow it.",
        watched.teacher_given,
        watched.teacher_learns,
        teacher_frozen=False,
    ),
    _m(
        "probabilities for logits",
        "You give the loss the teacher's probabilities. It takes the softmax itself, at its temperature.",
        watched.teacher_given,
        taught=partial(torch.softmax, dim=1),
    ),
    _m(
        "logarithms for logits",
        "You give the loss logarithms of the teacher's probabilities, not its logits.",
        watched.teacher_given,
        taught=partial(torch.log_softmax, dim=1),
    ),
    _m(
        "student and teacher swapped",
        "You hand the loss the teacher's logits first: then the teacher is to come near to the student.",
        watched.teacher_given,
        swapped=True,
    ),
    _m(
        "loss not used",
        "You use a loss of your own, and not the one that was given.",
        watched.teacher_given,
        own_loss=True,
    ),
    _m(
        "teacher's answers of other samples",
        "You shuffle the samples, and not the teacher's answers: each sample is taught what belongs to another.",
        lambda seen: watched.student_modes(seen)[0],
        shifted=True,
    ),
    _m(
        "labels of other samples",
        "The labels that you give the loss belong to other samples.",
        watched.labels_given,
        labels=lambda labels, taught: labels.flip(0),
    ),
    _m(
        "teacher's guesses for labels",
        "You give the loss the teacher's guesses in place of the labels: nobody learns where it errs.",
        watched.labels_given,
        labels=lambda labels, taught: taught.argmax(1),
    ),
    _m(
        "not shuffled",
        "The samples come in the same order in every epoch, as they lie.",
        watched.order,
        order=lambda schedule, epoch, samples: torch.arange(samples),
    ),
    _m(
        "order left to chance",
        "Your order comes from torch's own generator: two calls with the same seed differ.",
        watched.order,
        order=lambda schedule, epoch, samples: torch.randperm(samples),
    ),
    _m(
        "seed not used",
        "Your order is fixed, and not by schedule.seed: every seed gives the same.",
        watched.order,
        order=lambda schedule, epoch, samples: _shuffled(Schedule(1, 1.0), epoch, samples),
    ),
    _m(
        "drawn with replacement",
        "You draw samples at random with replacement: in an epoch some come twice and others never.",
        watched.number_of_steps,
        watched.covers,
        order=lambda schedule, epoch, samples: torch.randint(
            samples, (samples,), generator=torch.Generator().manual_seed(schedule.seed + epoch)
        ),
    ),
    _m(
        "last batch dropped",
        "A last batch that is not full is left out.",
        watched.number_of_steps,
        watched.largest_batch,
        last_batch=False,
    ),
    _m(
        "everything in one batch",
        "All samples are one batch: schedule.batch_size is not used.",
        watched.number_of_steps,
        watched.largest_batch,
        batch=lambda schedule, samples: samples,
    ),
    _m(
        "one sample a batch",
        "Each sample is a batch of its own: schedule.batch_size is not used.",
        watched.number_of_steps,
        watched.largest_batch,
        batch=lambda schedule, samples: 1,
    ),
    _m(
        "one epoch too few",
        "You train one epoch less than schedule.epochs.",
        watched.number_of_steps,
        epochs=lambda epochs: epochs - 1,
    ),
    _m(
        "one epoch too many",
        "You train one epoch more than schedule.epochs.",
        watched.number_of_steps,
        epochs=lambda epochs: epochs + 1,
    ),
    _m(
        "one epoch",
        "You go through the samples once: schedule.epochs is not used.",
        watched.number_of_steps,
        epochs=lambda epochs: 1,
    ),
    _m(
        "usual number of epochs",
        "You train for a number of epochs of your own: schedule.epochs is not used.",
        watched.number_of_steps,
        epochs=lambda epochs: 10,
    ),
    _m(
        "learning rate of your own",
        "Your learning rate is your own: schedule.learning_rate is not used.",
        watched.moved,
        rate=lambda rate: 1e-3,
    ),
    _m(
        "nothing learned",
        "No step changes the student: the loss is computed, and nothing follows from it.",
        watched.moved,
        watched.learned,
        learns=False,
    ),
    _m(
        "student that came in returned",
        "You train a copy, and give back the student that came in.",
        watched.moved,
        watched.learned,
        watched.returned,
        returns="student",
    ),
    _m(
        "gradients added up",
        "Gradients add up from step to step: nothing sets them back before the next backward pass.",
        watched.own_gradients,
        zeroed=False,
    ),
    _m(
        "never in training mode",
        "The student is never put in training mode: its batch norm and dropout do not do their work.",
        watched.student_modes,
        modes="never",
    ),
    _m(
        "training mode only once",
        "You put the student in training mode once. Judging it on validation ends that, from the second epoch on.",
        watched.student_modes,
        modes="once",
    ),
    _m(
        "judged in training mode",
        "You judge the student on validation in training mode: its batch norm looks at the whole split, and learns it.",
        watched.student_modes,
        judged_in_training=True,
    ),
    _m(
        "last epoch",
        "You give back the weights of the last epoch. state_dict() shares them with the network: a state that was "
        "kept goes on changing unless it is copied.",
        watched.judged_on,
        watched.returned,
        returns="last",
    ),
    _m(
        "worst epoch",
        "You keep the epoch with the largest loss on validation.",
        watched.judged_on,
        watched.returned,
        better=lambda value, best: value > best,
    ),
    _m(
        "validation never asked",
        "Nothing is measured on validation: which epoch was best cannot be known.",
        watched.judged_on,
        judges=False,
    ),
    _m(
        "judged on what was learned",
        "You choose the epoch by the samples that it learned from; the last one nearly always wins there.",
        watched.judged_on,
        judged_on_train=True,
    ),
    _m(
        "given back in training mode",
        "The network comes back in training mode: whoever uses it gets dropout.",
        watched.evaluating,
        in_training=True,
    ),
    _m(
        "after_step never called",
        "after_step is never used: zeros that must stay zero are trained away.",
        lambda seen: watched.held(seen)[1:],
        held="never",
    ),
    _m(
        "after_step each epoch",
        "What after_step returned is called once an epoch: within an epoch, zeros are trained away.",
        watched.held,
        held="each epoch",
    ),
    _m(
        "after_step before the step",
        "What after_step returned is called before the optimizer's step: the last word is the step's.",
        watched.held,
        held="before",
    ),
    _m(
        "after_step asked anew",
        "after_step is called in every step. It looks at the network and remembers: called late, it sees what "
        "training has changed already.",
        lambda seen: len(watched.held(seen)[0]),
        held="anew",
    ),
    _m(
        "after_step asked late",
        "after_step is called after the first step, and sees what training has changed already.",
        watched.held,
        held="late",
    ),
    _m(
        "after_step on the student that came in",
        "after_step gets the student that came in, and not the copy that is trained.",
        watched.held,
        held="student",
    ),
    _m(
        "NaN accepted",
        "You train on when the loss is NaN: every weight is NaN then.",
        watched.number_of_steps,
        accepts=lambda value: True,
    ),
)
