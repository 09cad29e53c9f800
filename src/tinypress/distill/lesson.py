"""Several losses as one: a weighted sum of terms, each of which looks at its part of a lesson."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.protocols import Loss

Pairwise = Callable[[Tensor, Tensor], Tensor]
Masked = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Lesson:
    """One batch as student and teacher see it: outputs, targets, the network's inputs, and the features
    (student's, teacher's) by the student's layer."""

    student: Tensor
    teacher: Tensor
    targets: Tensor
    inputs: tuple[Tensor, ...] = ()
    features: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Term(nn.Module):
    """A loss of a lesson; final classes below say what part of it they look at."""

    @abstractmethod
    def forward(self, lesson: Lesson) -> Tensor:
        """The loss, a scalar."""


class OnBoth(Term):
    """``loss(student, teacher, targets)``: soft targets with labels, as ``DistillationLoss``."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, lesson: Lesson) -> Tensor:
        """The loss, a scalar."""
        return self.loss(lesson.student, lesson.teacher, lesson.targets)


class OnOutputs(Term):
    """``loss(student, teacher)``: of outputs alone, as ``CosineLoss`` or ``InfoNCE``."""

    def __init__(self, loss: Pairwise) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, lesson: Lesson) -> Tensor:
        """The loss, a scalar."""
        return self.loss(lesson.student, lesson.teacher)


class OnTargets(Term):
    """``loss(student, targets)``: without a teacher, as cross-entropy or ``VirtualTeacher``."""

    def __init__(self, loss: Pairwise) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, lesson: Lesson) -> Tensor:
        """The loss, a scalar."""
        return self.loss(lesson.student, lesson.targets)


class OnFeatures(Term):
    """The mean of ``loss(student's feature, teacher's feature)`` over layers.

    Args:
        losses: one loss for every pair of layers, or one for each of the student's layers that are named.
    """

    def __init__(self, losses: Pairwise | Mapping[str, Pairwise]) -> None:
        super().__init__()
        if isinstance(losses, Mapping) and not losses:
            raise InputError("OnFeatures({})", "no layer is named", "Name the student's layers")
        self.losses = losses
        # so that projectors are seen as parameters of this module
        each = losses.values() if isinstance(losses, Mapping) else (losses,)
        self.learnt = nn.ModuleList(loss for loss in each if isinstance(loss, nn.Module))

    def forward(self, lesson: Lesson) -> Tensor:
        """The loss, a scalar.

        Raises:
            InputError: a layer was not captured.
        """
        losses = self.losses
        chosen = losses if isinstance(losses, Mapping) else dict.fromkeys(lesson.features, losses)
        missing = [name for name in chosen if name not in lesson.features]
        if missing or not chosen:
            raise InputError(
                f"OnFeatures({sorted(chosen)})",
                f"there are features of {sorted(lesson.features)} only",
                "Name the pairs of layers with features={'student.path': 'teacher.path'}",
            )
        values = [loss(*lesson.features[name]) for name, loss in chosen.items()]
        return sum(values[1:], start=values[0]) / len(values)


class OnTokens(Term):
    """``loss(student, teacher, mask)`` of token outputs, or of the features of ``layer``.

    Args:
        mask_input: which of the network's inputs is the mask [B, T] of the tokens that count.
    """

    def __init__(self, loss: Masked, mask_input: int, layer: str | None = None) -> None:
        super().__init__()
        self.loss, self.mask_input, self.layer = loss, mask_input, layer

    def forward(self, lesson: Lesson) -> Tensor:
        """The loss, a scalar.

        Raises:
            InputError: there is no such input or feature.
        """
        if not 0 <= self.mask_input < len(lesson.inputs):
            raise InputError(
                f"OnTokens(mask_input={self.mask_input})",
                f"the network has {len(lesson.inputs)} inputs",
                "Give the place of the mask among them, from 0",
            )
        if self.layer is None:
            pair = lesson.student, lesson.teacher
        elif self.layer in lesson.features:
            pair = lesson.features[self.layer]
        else:
            raise InputError(
                f"OnTokens(layer={self.layer!r})", "that layer was not captured", "Name it in features="
            )
        return self.loss(*pair, lesson.inputs[self.mask_input])


class WeightedSum(Term):
    """loss = Σ weight * term, with the value of each term (before its weight) in ``values`` after each call.

    Args:
        terms: name → (weight from 0, term). A loss of (student, teacher, targets) such as ``DistillationLoss`` may
            stand for a term.

    Raises:
        InputError: there is no term, or a weight is negative, NaN or infinite.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Term | Loss]]) -> None:
        super().__init__()
        call = f"WeightedSum({list(terms)})"
        if not terms:
            raise InputError(call, "there is no term", "Give {name: (weight, loss)}")
        for name, (weight, _) in terms.items():
            if isinstance(weight, bool) or not (math.isfinite(weight) and weight >= 0):
                raise InputError(call, f"the weight of {name!r} is {weight!r}", "Give a number from 0")
        self.weights = {name: float(weight) for name, (weight, _) in terms.items()}
        self.terms = [term if isinstance(term, Term) else OnBoth(term) for _, term in terms.values()]
        self.learnt = nn.ModuleList(self.terms)
        self.values: dict[str, float] = {}

    def parts(self, lesson: Lesson) -> dict[str, Tensor]:
        """Each term's value, a scalar, without its weight."""
        return {name: term(lesson) for name, term in zip(self.weights, self.terms, strict=True)}

    def forward(self, lesson: Lesson) -> Tensor:
        """The weighted sum, a scalar."""
        parts = self.parts(lesson)
        self.values = {name: float(value.detach()) for name, value in parts.items()}
        weighted = [self.weights[name] * value for name, value in parts.items()]
        return sum(weighted[1:], start=weighted[0])
