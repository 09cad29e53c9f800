"""Teachers that are no single trained network: several at once, none at all, and the student's own past.

Axes: B samples, C classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_labels, require_positive
from tinypress.distill.teach import train_with_distillation
from tinypress.errors import InputError
from tinypress.facts import Compressed
from tinypress.protocols import Loss
from tinypress.task import Split
from tinypress.train.loop import Progress, Schedule, silent


class MeanTeacher(nn.Module):
    """Several teachers as one: the weighted mean of what they say.

    ``of="logits"`` gives Σ w_k z_k. ``of="probabilities"`` gives log Σ w_k softmax(z_k), logits of the mean
    distribution (the ensemble of Hinton et al. 2015, section 1). Weights are divided by their sum.

    Raises:
        InputError: there is no teacher, or weights do not fit.
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        weights: Sequence[float] | None = None,
        *,
        of: Literal["logits", "probabilities"] = "logits",
    ) -> None:
        super().__init__()
        given = [1.0] * len(teachers) if weights is None else list(weights)
        call = f"MeanTeacher({len(teachers)} teachers, weights={weights!r}, of={of!r})"
        if not teachers or len(given) != len(teachers):
            raise InputError(call, "there is not one weight for each teacher", "Give as many as teachers")
        if any(isinstance(w, bool) or not (math.isfinite(w) and w >= 0) for w in given) or not sum(given) > 0:
            raise InputError(call, "a weight is negative or all are 0", "Give weights from 0")
        if of not in ("logits", "probabilities"):
            raise InputError(call, f"of is {of!r}", "Give 'logits' or 'probabilities'")
        self.teachers = nn.ModuleList(teachers)
        self.of = of
        self.shares = [weight / sum(given) for weight in given]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits [B, C] of all teachers together."""
        said = [teacher(*inputs) for teacher in self.teachers]
        if len({tuple(x.shape) for x in said}) != 1:
            raise InputError(
                "MeanTeacher()",
                f"the teachers give outputs of shapes {[tuple(x.shape) for x in said]}",
                "Give teachers with the same classes",
            )
        if self.of == "logits":
            mean: Tensor = sum(share * x for share, x in zip(self.shares, said, strict=True))
            return mean
        logs = [
            torch.log_softmax(x, 1) + math.log(share)
            for share, x in zip(self.shares, said, strict=True)
            if share
        ]
        return torch.logsumexp(torch.stack(logs), 0)


class VirtualTeacher(nn.Module):
    """Learning without a teacher from one that is written down (Yuan et al. 2020, arXiv:1909.11723, section 5).

    loss = (1 - alpha) * CE(student, labels) + alpha * KL(p_T ‖ softmax(student / T))

    The virtual teacher p gives the label ``correct`` and all other classes the rest in equal shares; p_T is it at
    temperature T, proportional to p^(1/T).

    Raises:
        InputError: a value out of range.
    """

    def __init__(self, correct: float = 0.99, temperature: float = 20.0, alpha: float = 0.5) -> None:
        super().__init__()
        call = f"VirtualTeacher(correct={correct!r}, temperature={temperature!r}, alpha={alpha!r})"
        require_positive(call, temperature=temperature)
        if isinstance(correct, bool) or not 0 < correct < 1:
            raise InputError(call, "correct must lie between 0 and 1", "Give 0.9 or more")
        if isinstance(alpha, bool) or not 0 <= alpha <= 1:
            raise InputError(call, "alpha must lie in 0..1", "Give the weight of the virtual teacher")
        self.correct, self.temperature, self.alpha = correct, temperature, alpha

    def forward(self, student_logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of logits [B, C], C > 1, and class indices [B]."""
        call = "VirtualTeacher()"
        if student_logits.dim() != 2 or student_logits.shape[1] < 2:
            raise InputError(call, f"logits are {tuple(student_logits.shape)}", "Give [B, C] logits, C > 1")
        samples, classes = student_logits.shape
        require_labels(call, labels, samples, classes)
        wrong = math.log((1 - self.correct) / (classes - 1))
        teacher = torch.full_like(student_logits, wrong)
        teacher.scatter_(1, labels[:, None], math.log(self.correct))
        soft = nn.functional.kl_div(
            torch.log_softmax(student_logits / self.temperature, 1),
            torch.log_softmax(teacher / self.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.alpha) * nn.functional.cross_entropy(student_logits, labels) + self.alpha * soft


def born_again(
    build: Callable[[], nn.Module],
    teacher: nn.Module,
    train: Split,
    validation: Split,
    *,
    generations: int = 1,
    loss: Loss | None = None,
    schedule: Schedule | None = None,
    progress: Progress = silent,
) -> tuple[Compressed, ...]:
    """Born-again networks (Furlanello et al. 2018, arXiv:1805.04770): each generation is taught by the one before.

    Every student starts untrained from ``build()``, with the seed of ``schedule`` plus its generation, so that
    generations differ. The mean of all of them is ``MeanTeacher([g.model for g in generations])``.

    Returns:
        The generations, the first of which ``teacher`` taught.

    Raises:
        InputError: ``generations`` is below 1.
        ModelError: student and teacher give outputs of different shape.
    """
    if isinstance(generations, bool) or not isinstance(generations, int) or generations < 1:
        raise InputError(f"born_again(generations={generations!r})", "there is none", "Give 1 or more")
    schedule = schedule if schedule is not None else Schedule(epochs=10, learning_rate=1e-3)
    born: list[Compressed] = []
    current = copy.deepcopy(teacher)
    for generation in range(1, generations + 1):
        seeded = replace(schedule, seed=schedule.seed + generation)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded.seed)
            student = build()
        taught = train_with_distillation(
            student, current, train, validation, loss=loss, schedule=seeded, progress=progress
        )
        born.append(taught)
        current = taught.model
    return tuple(born)
