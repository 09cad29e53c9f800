"""What training a student on its teacher's answers promises."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tinypress_course.checks import watched
from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import Judge, refuses, seen
from tinypress_course.checks.once import once
from tinypress_course.checks.watched import QUIET, Watched, watch
from tinypress_course.models import Plain, linear, random_network

TEACH = "train_with_distillation"
CLASSES = 5


def _teacher(seed: int, *, training: bool) -> Plain:
    layers: list[tuple[str, nn.Module]] = [
        ("fc1", nn.Linear(3, 8)),
        ("norm", nn.BatchNorm1d(8)),
        ("relu", nn.ReLU()),
        ("drop", nn.Dropout(0.4)),
        ("head", nn.Linear(8, CLASSES)),
    ]
    return random_network(layers, seed, training=training)


def _student(seed: int, *, norm: bool = False) -> Plain:
    middle: list[tuple[str, nn.Module]] = [("norm", nn.BatchNorm1d(4))] if norm else []
    layers = [("fc1", nn.Linear(3, 4)), *middle, ("tanh", nn.Tanh()), ("head", nn.Linear(4, CLASSES))]
    return random_network(layers, seed + 100)


def _case(
    draw: Draw,
    shown: str,
    *,
    samples: int = 8,
    learning_rate: float = QUIET,
    epochs: int = 2,
    batch_size: int = 4,
    training: bool = True,
    norm: bool = False,
    seed: int = 5,
    **more: Plain,
) -> Case:
    schedule = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed}
    inputs = {
        "student": _student(draw.seed, norm=norm),
        "teacher": _teacher(draw.seed, training=training),
        "train_inputs": draw.normal(samples, 3, salt=samples),
        "train_targets": torch.arange(samples) % CLASSES,
        "validation_inputs": draw.normal(6, 3, salt=99),
        "validation_targets": torch.arange(6) % CLASSES,
        "schedule": schedule,
        **more,
    }
    rate = "a learning rate of nearly 0" if learning_rate == QUIET else f"a learning rate of {learning_rate}"
    call = f"{TEACH}(student, teacher, {samples} samples, 6 for validation): batches of {batch_size}, "
    return Case(inputs, f"{call}{epochs} epochs, {rate}{', ' if shown else ''}{shown}")


@once
def _quiet(draw: Draw) -> Iterator[Case]:
    yield _case(draw, "a teacher with dropout and batch norm, in training mode")
    yield _case(draw, "a teacher with dropout and batch norm", training=False)
    yield _case(draw, "a last batch of two", samples=10)


@once
def _quiet_hidden(draw: Draw) -> Iterator[Case]:
    yield _case(draw, "other samples", samples=11, batch_size=3, seed=draw.seed + 6)
    yield _case(draw, "other samples", samples=9, batch_size=16, epochs=3, seed=draw.seed + 7)


def _normed(draw: Draw) -> Iterator[Case]:
    yield _case(draw, "a student with batch norm", norm=True)


@once
def _short(draw: Draw) -> Iterator[Case]:
    yield _case(draw, "", learning_rate=0.05, epochs=1)


def _learning(draw: Draw) -> Iterator[Case]:
    yield _case(draw, "", learning_rate=0.1, epochs=8, batch_size=8)


def _crossing(draw: Draw, behind: float, shown: str, learning_rate: float = 0.15) -> Case:
    """Train where x is positive, judge where it is negative, which a student without a bend cannot tell apart.

    The student starts at ``behind`` times the teacher's weights; on validation it is best at 0.
    """
    weight = draw.normal(CLASSES, 3)
    weight = torch.cat([weight[:, :2].sign() * (weight[:, :2].abs() + 0.3), weight[:, 2:]], 1)
    start = weight * torch.tensor([behind, behind, 1.0])
    positive = draw.normal(12, 2, salt=1).abs() + 0.5
    negative = -(draw.normal(6, 2, salt=2).abs() + 0.5)
    third, fourth = (draw.normal(n, 1, salt=n).abs() + 0.1 for n in (12, 6))
    relu = {"kind": "ReLU", "name": "relu", "options": {}, "state": {}}
    zeros = torch.zeros(CLASSES)
    case = _case(draw, shown, samples=12, batch_size=6, epochs=8, learning_rate=learning_rate)
    networks = {
        "student": {"layers": [linear(start, zeros, "fc")], "training": False},
        "teacher": {"layers": [relu, linear(weight, zeros, "fc")], "training": False},
    }
    data = {
        "train_inputs": torch.cat([positive, third], 1),
        "train_targets": torch.relu(torch.cat([positive, third], 1)).matmul(weight.T).argmax(1),
        "validation_inputs": torch.cat([negative, fourth], 1),
    }
    return Case({**case.inputs, **networks, **data}, case.shown)


@once
def _turning(draw: Draw) -> Iterator[Case]:
    yield _crossing(draw, 0.0, "what helps on the samples soon hurts on validation")
    yield _crossing(draw, -1.0, "validation gets better and then worse")


def _turning_hidden(draw: Draw) -> Iterator[Case]:
    yield _crossing(draw, -0.7, "validation gets better and then worse", learning_rate=0.2)


def _seeds(draw: Draw) -> Iterator[Case]:
    schedule = {"epochs": 2, "learning_rate": QUIET, "batch_size": 4}
    for seed in (5, 6):
        shown = f"twice, {'with the same seed' if seed == 5 else 'with another seed'}"
        yield _case(draw, shown, samples=16, again={**schedule, "seed": seed})


def _with_zeros(draw: Draw, learning_rate: float) -> Case:
    case = _case(draw, "zeros that after_step keeps", learning_rate=learning_rate, keep_zeros=True)
    case.inputs["student"]["layers"][0]["state"]["weight"][0] = 0.0
    return case


def _stepping(draw: Draw) -> Iterator[Case]:
    yield _with_zeros(draw, QUIET)


def _holding(draw: Draw) -> Iterator[Case]:
    yield _with_zeros(draw, 0.05)


def _breaking(draw: Draw) -> Iterator[Case]:
    for factor, after in ((math.nan, 0), (math.inf, 0), (math.nan, 2)):
        shown = f"a loss that becomes {factor}" if after else f"a loss that is {factor}"
        yield _case(draw, shown, learning_rate=0.05, broken={"factor": factor, "after": after})


def _defaults(draw: Draw) -> Iterator[Case]:
    case = _case(draw, "")
    yield Case({**case.inputs, "schedule": None}, f"{TEACH}(student, teacher, 8 samples, 6 for validation)")


def _shows(words: Callable[[Watched], str | None]) -> Judge:
    return seen(lambda case, answer: words(watch(case, answer)))


def _kept(found: Watched) -> str | None:
    which = watched.changed(found)
    return f"the {which[0]} that came in has other weights or running averages than before" if which else None


def _asked(found: Watched) -> str | None:
    given = watched.teacher_given(found)
    if given == "nothing":
        return "the loss that was given is never called"
    if given == "its logits":
        return "a gradient would flow into the teacher" if watched.teacher_learns(found) else None
    if given == "other logits":
        return "the loss gets other logits than those with which the teacher answers in evaluation mode"
    return f"where the loss expects the teacher's logits it gets {given}"


def _belongs(found: Watched) -> str | None:
    trained, judged = watched.student_modes(found)
    if "other samples" in trained + judged:
        return "the loss gets logits of the student and of the teacher that are not of the same samples"
    labels = watched.labels_given(found)
    return (
        None if labels == "theirs" else f"where the loss expects the labels of its samples it gets {labels}"
    )


def _epochs(found: Watched) -> str | None:
    schedule = found.inputs["schedule"]
    steps, largest = watched.number_of_steps(found), watched.largest_batch(found)
    if not steps:
        return "the loss never gets a sample to learn from"
    if largest > schedule["batch_size"]:
        return f"a batch has {largest} samples"
    if steps != watched.epoch_length(found.inputs) * schedule["epochs"]:
        return f"{steps} batches were learned from"
    return None if watched.covers(found) else "in some epoch a sample was left out, or came twice"


def _ordered(found: Watched) -> str | None:
    order = watched.order(found)
    if order == "none":
        return "the loss never gets a sample to learn from"
    if order == "as they lie":
        return "the samples come in the order in which they lie"
    if found.inputs["schedule"]["seed"] == found.inputs["again"]["seed"]:
        return None if order == "as before" else "the same seed gives two orders"
    return "two seeds give the same order" if order == "as before" else None


def _learned(found: Watched) -> str | None:
    return None if watched.learned(found) else "the loss on the samples that it learned from hardly fell"


def _still(found: Watched) -> str | None:
    return "the weights moved at a learning rate of nearly 0" if watched.moved(found) else None


def _in_modes(found: Watched) -> str | None:
    trained, judged = watched.student_modes(found)
    if "evaluation" in trained:
        return "not every batch was learned in training mode, so batch norm and dropout did not do their work"
    return "the student was judged on validation in training mode" if "training" in judged else None


def _best(found: Watched) -> str | None:
    if len(watched.epochs_judged(found)) < found.inputs["schedule"]["epochs"]:
        return "not every epoch was judged by the loss on validation"
    which = watched.returned(found)
    if which == "the best":
        return None
    return f"an earlier epoch had the least loss on validation, and the weights that came back are {which}"


def _evaluating(found: Watched) -> str | None:
    return None if watched.evaluating(found) else "the network comes back in training mode"


def _held(found: Watched) -> str | None:
    made, kept, zeros = watched.held(found)
    if len(made) != 1 or made[0] > 0:
        when = f"{len(made)} times" if len(made) != 1 else "after the first step"
        return f"after_step was called {when}, so it does not see the network as it was"
    steps = watched.number_of_steps(found)
    if kept != steps:
        return f"in {steps} steps, what after_step returned was called {kept} times"
    return None if zeros else "the network that came back lacks zeros that after_step kept"


def _own_gradient(found: Watched) -> str | None:
    if watched.own_gradients(found):
        return None
    return "a step was taken on another gradient than that of its batch"


def _stands(case: Case, answer: Answer) -> str | None:
    states = [layer["state"] for layer in answer["model"]["layers"]]
    values: list[Tensor] = [value for state in states for value in state.values()]
    if not all(bool(torch.isfinite(value).all()) for value in values):
        return "NaN or infinity came back"
    return None


CHECKS = (
    Check(TEACH, "leaves both networks as they were", _short, _shows(_kept)),
    Check(TEACH, "asks the teacher in evaluation mode, and sends it no gradient", _quiet, _shows(_asked)),
    Check(TEACH, "brings together what belongs to one sample", _quiet, _shows(_belongs)),
    Check(TEACH, "goes through every sample once an epoch, in batches", _quiet, _shows(_epochs)),
    Check(TEACH, "does so for others", _quiet_hidden, _shows(_epochs), hidden=True),
    Check(TEACH, "takes them in an order that the seed fixes", _seeds, _shows(_ordered)),
    Check(TEACH, "learns", _learning, _shows(_learned)),
    Check(TEACH, "learns at the rate of the schedule", _quiet, _shows(_still)),
    Check(TEACH, "trains in training mode, and judges in evaluation mode", _normed, _shows(_in_modes)),
    Check(TEACH, "takes every step on the gradient of its own batch", _stepping, _shows(_own_gradient)),
    Check(TEACH, "gives back the epoch that was best on validation", _turning, _shows(_best)),
    Check(TEACH, "does so where another epoch is best", _turning_hidden, _shows(_best), hidden=True),
    Check(TEACH, "gives the network back in evaluation mode", _short, _shows(_evaluating)),
    Check(TEACH, "calls what must hold after every step", _holding, _shows(_held)),
    Check(TEACH, "refuses a loss that is NaN or infinite", _breaking, refuses()),
    Check(TEACH, "has a loss and a schedule of its own", _defaults, seen(_stands)),
)
