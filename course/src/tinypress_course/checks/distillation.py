"""What the loss of knowledge distillation promises."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import Judge, close, number, refuses, seen, short

LOSS = "DistillationLoss"


def _case(
    student: Tensor, teacher: Tensor, labels: list[int], temperature: float, alpha: float, name: str = ""
) -> Case:
    inputs = {
        "student": student.double(),
        "teacher": teacher.double(),
        "labels": torch.tensor(labels),
        "temperature": temperature,
        "alpha": alpha,
    }
    shown = name or f"student {short(student)}, teacher {short(teacher)}, labels {labels}"
    return Case(inputs, f"{LOSS}(temperature={temperature}, alpha={alpha})({shown})")


def _drawn(
    draw: Draw, batch: int, classes: int, temperature: float, alpha: float, salt: int, name: str = ""
) -> Case:
    student = 2 * draw.normal(batch, classes, salt=salt)
    teacher = 3 * draw.normal(batch, classes, salt=salt + 1)
    labels = [draw.choice.randrange(classes) if at == 0 else (at + salt) % classes for at in range(batch)]
    shown = name or f"{batch} rows of {classes} logits, labels {labels}"
    return _case(student, teacher, labels, temperature, alpha, shown)


def _agreeing(draw: Draw) -> Iterator[Case]:
    for temperature in (1.0, 4.0):
        logits = torch.tensor([[2.0, -1.0]])
        yield _case(logits, logits, [0], temperature, 1.0)
    logits = 3 * draw.normal(4, 5)
    yield _case(logits, logits, [0, 1, 2, 3], 2.0, 1.0, "4 rows of 5 equal logits")


def _costs_nothing(case: Case, answer: Answer) -> str | None:
    loss = _one(answer)
    if abs(loss) <= 1e-5:
        return None
    return f"student and teacher agree on everything, and the soft part costs {number(loss)}"


def _divergence(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), [1], 1.0, 1.0)
    yield _case(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 3.0, 1.0]]), [1], 1.0, 1.0)
    yield _case(
        torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([[2.0, 0.0], [1.0, 3.0]]), [1, 0], 1.0, 1.0
    )
    yield _case(torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]]), [1], 1.0, 1.0)
    yield _drawn(draw, 5, 3, 1.0, 1.0, salt=10)


def _softened(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), [1], 2.0, 1.0)
    yield _case(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 3.0, 1.0]]), [1], 4.0, 1.0)
    yield _case(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 3.0, 1.0]]), [1], 0.5, 1.0)
    yield _drawn(draw, 4, 6, 3.0, 1.0, salt=20)


def _labels_alone(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]]), [1], 1.0, 0.0)
    yield _case(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]]), [1], 4.0, 0.0)
    yield _drawn(draw, 3, 4, 2.0, 0.0, salt=30)


def _weighed(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]]), [1], 1.0, 0.75)
    yield _case(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]]), [0], 2.0, 0.25)
    yield _drawn(draw, 3, 4, 4.0, 0.7, salt=40)
    yield _drawn(draw, 6, 3, 2.0, 0.1, salt=50)


def _hidden(draw: Draw) -> Iterator[Case]:
    for salt, (temperature, alpha) in enumerate(((1.0, 0.5), (1.7, 1.0), (5.0, 0.9), (2.5, 0.0), (0.7, 0.3))):
        yield _drawn(draw, 2 + salt, 7 - salt, temperature, alpha, 60 + 2 * salt, "other logits")


def _right(case: Case) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to the student's logits, as the formula gives them."""
    student, teacher, labels = (case.inputs[name] for name in ("student", "teacher", "labels"))
    t, alpha, rows = case.inputs["temperature"], case.inputs["alpha"], torch.arange(len(labels))
    says, knows = torch.log_softmax(student / t, 1), torch.log_softmax(teacher / t, 1)
    plain = torch.log_softmax(student, 1)
    soft = (knows.exp() * (knows - says)).sum(1).mean()
    loss = alpha * t**2 * soft - (1 - alpha) * plain[rows, labels].mean()
    at_label = torch.zeros_like(student)
    at_label[rows, labels] = 1.0
    gradient = alpha * t * (says.exp() - knows.exp()) + (1 - alpha) * (plain.exp() - at_label)
    return loss, gradient / len(labels)


def _value(case: Case, answer: Answer) -> str | None:
    loss, due = _one(answer), _right(case)[0].item()
    return None if close(loss, due, 1e-4) else f"it gives {number(loss)}, which is not what the formula gives"


def _gradient(case: Case, answer: Answer) -> str | None:
    gradient = answer["gradient"]
    if not isinstance(gradient, Tensor):
        return "no gradient reaches the student's logits"
    if close(gradient.double(), _right(case)[1], 1e-4):
        return None
    return f"the student's logits get the gradient {short(gradient)}, which is not that of the formula"


def _one(answer: Answer) -> float:
    loss = answer["loss"]
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"one number was promised, {given} came back")
    return float(loss.item())


def _single(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]]), [1], 2.0, 0.5)
    case = _drawn(draw, 4, 3, 2.0, 0.5, salt=80)
    single = {name: case.inputs[name].float() for name in ("student", "teacher")}
    yield Case({**case.inputs, **single}, case.shown)


def _module(case: Case, answer: Answer) -> str | None:
    if not answer["is_module"]:
        return "what was made is no nn.Module"
    return None if math.isfinite(_one(answer)) else f"it gives {number(_one(answer))}"


def _settings(values: list[tuple[float, float]]) -> Iterator[Case]:
    for temperature, alpha in values:
        yield _case(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]]), [1], temperature, alpha)


def _misfits(draw: Draw) -> Iterator[Case]:
    two = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    yield _case(two, two[:1], [1, 0], 2.0, 0.5)
    yield _case(two, two[:, :1], [1, 0], 2.0, 0.5)
    yield _case(two, draw.normal(2, 3), [1, 0], 2.0, 0.5, "student [2 x 2], teacher [2 x 3], labels [1, 0]")


_SHOWS: Judge = seen(_value)
CHECKS = (
    Check(LOSS, "costs nothing where student and teacher agree", _agreeing, seen(_costs_nothing)),
    Check(LOSS, "is the divergence of the student from the teacher at alpha 1", _divergence, _SHOWS),
    Check(LOSS, "compares both at the temperature, and scales by its square", _softened, _SHOWS),
    Check(LOSS, "is the cross entropy with the labels at alpha 0", _labels_alone, _SHOWS),
    Check(LOSS, "weighs the two parts by alpha", _weighed, _SHOWS),
    Check(LOSS, "does so for other logits", _hidden, _SHOWS, hidden=True),
    Check(LOSS, "sends the gradient of the formula to the student", _weighed, seen(_gradient)),
    Check(LOSS, "is a module, and one number for the whole batch", _single, seen(_module)),
    Check(
        LOSS,
        "refuses a temperature that is not positive and finite",
        lambda draw: _settings([(0.0, 0.5), (-2.0, 0.5), (math.inf, 0.5), (math.nan, 0.5)]),
        refuses(),
    ),
    Check(
        LOSS,
        "refuses an alpha outside 0..1",
        lambda draw: _settings([(2.0, 1.5), (2.0, -0.1), (2.0, 70.0), (2.0, math.nan)]),
        refuses(),
    ),
    Check(LOSS, "refuses a teacher of another shape", _misfits, refuses()),
)
