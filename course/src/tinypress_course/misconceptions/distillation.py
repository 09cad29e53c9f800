"""Mistakes that people make about the loss of knowledge distillation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinypress_course.misconceptions.base import Misconception

Soft = Callable[[Tensor, Tensor, float], Tensor]
Hard = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Mix = Callable[[Tensor, Tensor, float, float], Tensor]
Rows = Callable[[Tensor], Tensor]

_log_rows = partial(torch.log_softmax, dim=1)
_rows = partial(torch.softmax, dim=1)


def _divergence(target: Tensor, says: Tensor) -> Tensor:
    return (target.exp() * (target - says)).sum(1).mean()


def _softened(
    student: Tensor,
    teacher: Tensor,
    t: float,
    of_student: Callable[[Tensor, float], Tensor] = lambda logits, t: logits / t,
    of_teacher: Callable[[Tensor, float], Tensor] = lambda logits, t: logits / t,
    between: Callable[[Tensor, Tensor], Tensor] = _divergence,
    log: Rows = _log_rows,
) -> Tensor:
    return between(log(of_teacher(teacher, t)), log(of_student(student, t)))


def _capped(logits: Tensor) -> Tensor:
    return (_rows(logits) + 1e-8).log()


def _as_it_is(logits: Tensor, t: float) -> Tensor:
    return logits


def _times(logits: Tensor, t: float) -> Tensor:
    return logits * t


def _divided_late(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    return functional.kl_div(_log_rows(student) / t, _rows(teacher) / t, reduction="batchmean")


def _labels(student: Tensor, teacher: Tensor, labels: Tensor, t: float) -> Tensor:
    return functional.cross_entropy(student, labels)


def _mixed(soft: Tensor, hard: Tensor, t: float, alpha: float) -> Tensor:
    return alpha * t**2 * soft + (1 - alpha) * hard


class _Loss(nn.Module):
    """The loss with places for mistakes; with none of them it agrees with the statement."""

    def __init__(
        self,
        temperature: float,
        alpha: float,
        soft: Soft = _softened,
        hard: Hard = _labels,
        mix: Mix = _mixed,
        any_temperature: bool = False,
        any_alpha: bool = False,
        any_shapes: bool = False,
    ) -> None:
        super().__init__()
        if not (any_temperature or (math.isfinite(temperature) and temperature > 0)):
            raise ValueError(f"temperature {temperature}")
        if not (any_alpha or 0 <= alpha <= 1):
            raise ValueError(f"alpha {alpha}")
        self.temperature, self.alpha, self.any_shapes = temperature, alpha, any_shapes
        self.soft, self.hard, self.mix = soft, hard, mix

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The loss."""
        if not self.any_shapes and student.shape != teacher.shape:
            raise ValueError(f"shapes {student.shape} and {teacher.shape}")
        soft = self.soft(student, teacher, self.temperature)
        hard = self.hard(student, teacher, labels, self.temperature)
        return self.mix(soft, hard, self.temperature, self.alpha)


def _plain_function(temperature: float, alpha: float) -> Callable[..., Tensor]:
    return _Loss(temperature, alpha).forward


def _m(name: str, says: str, compares: tuple[str, ...] = ("loss",), **mistake: Any) -> Misconception:
    return Misconception("DistillationLoss", name, says, partial(_Loss, **mistake), compares)


def _between(between: Callable[[Tensor, Tensor], Tensor]) -> Soft:
    return partial(_softened, between=between)


def _scaled(scale: Callable[[float], float]) -> Mix:
    return lambda soft, hard, t, alpha: alpha * scale(t) * soft + (1 - alpha) * hard


MISCONCEPTIONS: tuple[Misconception, ...] = (
    _m(
        "square of the temperature missing",
        "The soft part is not scaled back: the hotter you soften, the less the teacher is heard.",
        mix=_scaled(lambda t: 1.0),
    ),
    _m(
        "logarithm after the softmax",
        "You take the logarithm of a softmax plus a small number: a student that is sure, and wrong, pays too little.",
        soft=partial(_softened, log=_capped),
    ),
    _m(
        "logarithm of a softmax of zero",
        "You take the logarithm of a softmax. Where it has run to 0 the loss is infinite or NaN.",
        soft=partial(_softened, log=lambda logits: _rows(logits).log()),
    ),
    _m(
        "temperature not squared",
        "You scale the soft part by the temperature itself. Its gradient shrinks twice: once in each softmax.",
        mix=_scaled(lambda t: t),
    ),
    _m(
        "divided by the square",
        "You divide the soft part by the square of the temperature: that makes it smaller once more.",
        mix=_scaled(lambda t: t**-2),
    ),
    _m(
        "both parts scaled",
        "You scale the whole loss by the square of the temperature; the labels' part was never softened.",
        mix=lambda soft, hard, t, alpha: t**2 * (alpha * soft + (1 - alpha) * hard),
    ),
    _m(
        "labels' part scaled",
        "You scale the labels' part by the square of the temperature, and not the soft one.",
        mix=lambda soft, hard, t, alpha: alpha * soft + (1 - alpha) * t**2 * hard,
    ),
    _m(
        "alpha on the wrong side",
        "Your alpha weighs the labels. It is the weight of what the teacher says.",
        mix=lambda soft, hard, t, alpha: (1 - alpha) * t**2 * soft + alpha * hard,
    ),
    _m(
        "labels at full weight",
        "The labels' part enters in full, whatever alpha is.",
        mix=lambda soft, hard, t, alpha: alpha * t**2 * soft + hard,
    ),
    _m(
        "teacher at full weight",
        "The soft part enters in full, whatever alpha is.",
        mix=lambda soft, hard, t, alpha: t**2 * soft + (1 - alpha) * hard,
    ),
    _m(
        "alpha on both",
        "You multiply both parts by alpha.",
        mix=lambda soft, hard, t, alpha: alpha * (t**2 * soft + hard),
    ),
    _m(
        "alpha not used",
        "Both parts enter in full: alpha changes nothing.",
        mix=lambda soft, hard, t, alpha: t**2 * soft + hard,
    ),
    _m(
        "half of each",
        "You weigh both parts alike: alpha changes nothing.",
        mix=lambda soft, hard, t, alpha: 0.5 * t**2 * soft + 0.5 * hard,
    ),
    _m(
        "labels subtracted",
        "You take the labels' part away from the soft part instead of adding it.",
        mix=lambda soft, hard, t, alpha: alpha * t**2 * soft - (1 - alpha) * hard,
    ),
    _m(
        "labels never used",
        "The labels' part is missing: the student hears the teacher alone.",
        mix=lambda soft, hard, t, alpha: alpha * t**2 * soft,
    ),
    _m(
        "teacher alone at full weight",
        "The labels' part is missing, and alpha changes nothing.",
        mix=lambda soft, hard, t, alpha: t**2 * soft,
    ),
    _m(
        "teacher never used",
        "The soft part is missing: the student never hears the teacher.",
        mix=lambda soft, hard, t, alpha: (1 - alpha) * hard,
    ),
    _m(
        "labels alone",
        "The loss is the labels' part alone: the student never hears the teacher.",
        mix=lambda soft, hard, t, alpha: hard,
    ),
    _m(
        "nothing",
        "The loss is 0 whatever comes in: nothing can be learned from it.",
        mix=lambda soft, hard, t, alpha: 0 * soft,
    ),
    _m(
        "divergence the wrong way round",
        "Your divergence is that of the teacher from the student. Which of them is the truth that the other should "
        "come near to?",
        soft=_between(lambda target, says: _divergence(says, target)),
    ),
    _m(
        "divergence with the wrong sign",
        "Your divergence is negative: learning drives the student away from the teacher.",
        soft=_between(lambda target, says: -_divergence(target, says)),
    ),
    _m(
        "divergence both ways",
        "You average the divergence in both directions.",
        soft=_between(lambda target, says: (_divergence(target, says) + _divergence(says, target)) / 2),
    ),
    _m(
        "average over classes",
        "You average over the classes as well ('mean' does): more classes then mean less of the teacher.",
        soft=_between(lambda target, says: (target.exp() * (target - says)).mean()),
    ),
    _m(
        "sum over the batch",
        "You add the divergence up over the batch: a batch twice as large gives twice the loss.",
        soft=_between(lambda target, says: (target.exp() * (target - says)).sum()),
    ),
    _m(
        "not reduced",
        "Your soft part keeps a number for every class of every sample; one number for the batch was promised.",
        ("loss", "gradient"),
        soft=_between(lambda target, says: target.exp() * (target - says)),
    ),
    _m(
        "cross entropy with the teacher",
        "Your soft part is the cross entropy with the teacher. Where the two agree it is not 0, but what the teacher "
        "is unsure about.",
        soft=_between(lambda target, says: -(target.exp() * says).sum(1).mean()),
    ),
    _m(
        "squared distance of logits",
        "Your soft part is a squared distance of logits; two distributions were to be compared.",
        soft=lambda student, teacher, t: functional.mse_loss(student, teacher),
    ),
    _m(
        "squared distance of softened logits",
        "Your soft part is a squared distance of logits; two distributions were to be compared.",
        soft=lambda student, teacher, t: functional.mse_loss(student / t, teacher / t),
    ),
    _m(
        "squared distance of probabilities",
        "Your soft part is a squared distance of probabilities and no divergence.",
        soft=_between(lambda target, says: functional.mse_loss(says.exp(), target.exp())),
    ),
    _m(
        "teacher's best guess",
        "You train on the class that the teacher likes best: what it thinks of the others is lost.",
        soft=lambda student, teacher, t: functional.cross_entropy(student / t, teacher.argmax(1)),
    ),
    _m(
        "teacher not softened",
        "Only the student is softened. Equal logits then cost something.",
        soft=partial(_softened, of_teacher=_as_it_is),
    ),
    _m(
        "student not softened",
        "Only the teacher is softened. Equal logits then cost something.",
        soft=partial(_softened, of_student=_as_it_is),
    ),
    _m(
        "temperature ignored",
        "Neither side is softened: the temperature only scales the result.",
        soft=partial(_softened, of_student=_as_it_is, of_teacher=_as_it_is),
    ),
    _m(
        "temperature nowhere",
        "The temperature is used nowhere.",
        soft=partial(_softened, of_student=_as_it_is, of_teacher=_as_it_is),
        mix=_scaled(lambda t: 1.0),
    ),
    _m(
        "multiplied by the temperature",
        "You multiply the logits by the temperature: a high one then sharpens instead of softening.",
        soft=partial(_softened, of_student=_times, of_teacher=_times),
    ),
    _m(
        "probabilities divided",
        "You divide by the temperature after the softmax: probabilities then no longer sum to 1.",
        soft=_divided_late,
    ),
    _m(
        "softmax twice",
        "Softmax is taken twice in the soft part: probabilities are softened as if they were logits.",
        soft=lambda student, teacher, t: _softened(_rows(student), _rows(teacher), t),
    ),
    _m(
        "softmax of softened probabilities",
        "Softmax is taken twice in the soft part.",
        soft=lambda student, teacher, t: _softened(_rows(student / t), _rows(teacher / t), 1.0),
    ),
    _m(
        "softmax along the batch",
        "Your softmax runs along the batch and not along the classes.",
        ("loss", "gradient"),
        soft=partial(_softened, log=partial(torch.log_softmax, dim=0)),
    ),
    _m(
        "logarithm missing",
        "Your divergence gets the student's probabilities where it expects their logarithms.",
        soft=lambda student, teacher, t: functional.kl_div(
            _rows(student / t), _rows(teacher / t), reduction="batchmean"
        ),
    ),
    _m(
        "logarithms taken for probabilities",
        "Your divergence gets the teacher's logarithms where it expects probabilities.",
        soft=lambda student, teacher, t: functional.kl_div(
            _log_rows(student / t), _log_rows(teacher / t), reduction="batchmean"
        ),
    ),
    _m(
        "logits taken for logarithms",
        "Your divergence gets the student's logits where it expects logarithms of probabilities.",
        soft=lambda student, teacher, t: functional.kl_div(
            student / t, _rows(teacher / t), reduction="batchmean"
        ),
    ),
    _m(
        "cross entropy at the temperature",
        "You soften the student for the labels' part too: a label has no doubts to be shown.",
        hard=lambda student, teacher, labels, t: functional.cross_entropy(student / t, labels),
    ),
    _m(
        "cross entropy of probabilities",
        "The labels' part takes softmax twice: cross entropy expects logits.",
        hard=lambda student, teacher, labels, t: functional.cross_entropy(_rows(student), labels),
    ),
    _m(
        "logarithm missing for the labels",
        "The labels' part reads a likelihood without its logarithm.",
        hard=lambda student, teacher, labels, t: functional.nll_loss(_rows(student), labels),
    ),
    _m(
        "logits for the labels",
        "The labels' part reads logits where logarithms of probabilities are expected.",
        hard=lambda student, teacher, labels, t: functional.nll_loss(student, labels),
    ),
    _m(
        "cross entropy added up",
        "The labels' part is added up over the batch and not averaged.",
        hard=lambda student, teacher, labels, t: functional.cross_entropy(student, labels, reduction="sum"),
    ),
    _m(
        "teacher judged by the labels",
        "The labels' part judges the teacher, which learns nothing any more, and not the student.",
        hard=lambda student, teacher, labels, t: functional.cross_entropy(teacher, labels),
    ),
    _m(
        "teacher's guess for the label",
        "The labels' part is trained on the teacher's guesses: nobody reads the labels.",
        hard=lambda student, teacher, labels, t: functional.cross_entropy(student, teacher.argmax(1)),
    ),
    _m(
        "student detached",
        "The soft part is cut off from the student: its value is right, and nothing is learned from it.",
        ("gradient",),
        soft=lambda student, teacher, t: _softened(student.detach(), teacher, t),
    ),
    _m(
        "any temperature accepted",
        "You take temperatures that soften nothing: 0 is divided by, and infinity makes everything alike.",
        any_temperature=True,
    ),
    _m(
        "any alpha accepted",
        "You take any alpha: above 1, the labels push the wrong way.",
        any_alpha=True,
    ),
    _m(
        "any shapes accepted",
        "You take a teacher of another shape: what fits by chance is spread over the student's logits.",
        any_shapes=True,
    ),
    Misconception(
        "DistillationLoss",
        "no module",
        "What you make is no nn.Module, so it cannot stand where a loss with settings does.",
        _plain_function,
        ("is_module",),
    ),
)
