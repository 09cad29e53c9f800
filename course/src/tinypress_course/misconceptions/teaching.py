"""Mistakes that people make when they train a student on its teacher's answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from tinypress_course.checks import watched
from tinypress_course.checks.base import Answer, Case
from tinypress_course.checks.watched import Watched, watch
from tinypress_course.kit import Schedule
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.misconceptions.training import Training, shuffled, teach
from tinypress_course.models import Plain

Finding = Callable[[Watched], Plain]


def _shown(*findings: Finding) -> Callable[[Case, Answer], Plain]:
    def reads(case: Case, answer: Answer) -> Plain:
        seen = watch(case, answer)
        return [finding(seen) for finding in findings]

    return reads


_right = partial(teach, how=Training())


def _m(name: str, says: str, *findings: Finding, **mistake: Any) -> Misconception:
    implementation = partial(teach, how=Training(**mistake))
    return Misconception(
        "train_with_distillation", name, says, implementation, reads=_shown(*findings), right=_right
    )


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
        "gradient into the teacher",
        "The teacher's answers carry a gradient: it is computed for nothing, and an optimizer could follow it.",
        watched.teacher_given,
        watched.teacher_learns,
        teacher_frozen=False,
        asked_once=True,
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
    *(
        _m(
            "loss not used",
            "You learn by a loss of your own, and not by the one that was given.",
            watched.teacher_given,
            watched.number_of_steps,
            own_loss=where,
        )
        for where in ("everywhere", "training")
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
        order=lambda schedule, epoch, samples: shuffled(Schedule(1, 1.0), epoch, samples),
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
    Misconception(
        "train_with_distillation",
        "teacher given back",
        "You give the teacher back, and not the student that was trained.",
        partial(teach, how=Training(returns="teacher")),
        reads=lambda case, answer: [layer["name"] for layer in answer["model"]["layers"]],
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
