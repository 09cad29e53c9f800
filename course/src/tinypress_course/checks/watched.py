"""What a watched training shows: which samples each call of the loss was about, in which order, and what came back.

The findings are words and numbers, so that trainings can be compared whose optimizer and order differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tinypress_course.checks.base import Answer, Case
from tinypress_course.checks.judging import same
from tinypress_course.models import Plain, network_from
from tinypress_course.probes import watched_loss

QUIET = 1e-9  # a learning rate at which float32 weights stay, so that every call can be traced to its samples


@dataclass(frozen=True)
class Asked:
    """One call of the loss; ``rows`` are the samples whose teacher's answers it got, None where they are nobody's.

    The samples of validation follow those of training. ``step`` tells a call that was learned from.
    """

    student: Tensor
    teacher: Tensor
    labels: Tensor
    teacher_learns: bool
    rows: tuple[int, ...] | None
    step: bool


@dataclass(frozen=True)
class Watched:
    """A training: what went in, what came back, the teacher's right answers, and the calls of the loss in order."""

    inputs: Mapping[str, Plain]
    answer: Answer
    answers: Tensor
    calls: tuple[Asked, ...]

    @property
    def steps(self) -> tuple[Asked, ...]:
        """The calls that were learned from."""
        return tuple(call for call in self.calls if call.step)


def watch(case: Case, answer: Answer) -> Watched:
    """What is seen of one training."""
    answers = _teacher_answers(case)
    return Watched(case.inputs, answer, answers, _asked(case.inputs, answer["losses"], answers))


_remembered: deque[tuple[Case, Tensor]] = deque(maxlen=16)


def _teacher_answers(case: Case) -> Tensor:
    """What the teacher answers in evaluation mode; remembered, since many mistakes are tried on one case."""
    for known, answers in _remembered:
        if known is case:
            return answers
    answers = _says(network_from(case.inputs["teacher"]).eval(), _samples(case.inputs))
    _remembered.append((case, answers))
    return answers


def _asked(inputs: Mapping[str, Plain], calls: Any, answers: Tensor) -> tuple[Asked, ...]:
    found = []
    for call in calls:
        rows = _rows(call["teacher"], answers)
        inside = rows is None or all(row < len(inputs["train_targets"]) for row in rows)
        step = call["student_learns"] and inside
        found.append(
            Asked(call["student"], call["teacher"], call["labels"], call["teacher_learns"], rows, step)
        )
    return tuple(found)


def _samples(inputs: Mapping[str, Plain]) -> Tensor:
    return torch.cat([inputs["train_inputs"], inputs["validation_inputs"]])


def _says(network: nn.Module, samples: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = network(samples)
    return answer


def _rows(given: Tensor, answers: Tensor) -> tuple[int, ...] | None:
    if given.dim() != 2 or given.shape[1:] != answers.shape[1:]:
        return None
    nearest = (given[:, None] - answers[None]).abs().amax(2).min(1)
    return tuple(nearest.indices.tolist()) if float(nearest.values.max()) < 1e-3 else None


def teacher_given(watched: Watched) -> str:
    """What stood where the teacher's logits were promised, first of all where something was learned."""
    word = _teacher_word(_learned_from(watched), watched.answers)
    return _teacher_word(watched.calls, watched.answers) if word == "its logits" else word


def _learned_from(watched: Watched) -> tuple[Asked, ...]:
    return tuple(call for call in watched.calls if call.step or call.teacher_learns) or watched.calls


def _teacher_word(calls: tuple[Asked, ...], answers: Tensor) -> str:
    if not calls:
        return "nothing"
    if all(call.rows is not None for call in calls):
        return "its logits"
    if all(_rows(call.teacher, answers.softmax(1)) is not None for call in calls):
        return "its probabilities"
    if all(_rows(call.teacher, answers.log_softmax(1)) is not None for call in calls):
        return "logarithms of its probabilities"
    if all(_rows(call.student, answers) is not None for call in calls):
        return "the student's logits"
    return "other logits"


def teacher_learns(watched: Watched) -> bool:
    """Whether a gradient could flow into the teacher."""
    return any(call.teacher_learns for call in watched.calls)


def labels_given(watched: Watched) -> str:
    """Whose labels the loss got, first of all where something was learned."""
    targets = torch.cat([watched.inputs["train_targets"], watched.inputs["validation_targets"]])
    for calls in (_learned_from(watched), watched.calls):
        known = [call for call in calls if call.rows is not None]
        if all(torch.equal(call.labels, targets[list(call.rows or ())]) for call in known):
            continue
        guesses = all(torch.equal(call.labels, call.teacher.argmax(1)) for call in calls)
        return "the teacher's guesses" if guesses else "labels of others"
    return "theirs"


def epoch_length(inputs: Mapping[str, Plain]) -> int:
    """Batches in one epoch."""
    return -(-len(inputs["train_targets"]) // int(inputs["schedule"]["batch_size"]))


def number_of_steps(watched: Watched) -> int:
    """Batches that were learned from."""
    return len(watched.steps)


def largest_batch(watched: Watched) -> int:
    """Samples in the largest batch that was learned from."""
    return max((len(call.labels) for call in watched.steps), default=0)


def covers(watched: Watched) -> bool:
    """Whether every epoch goes through every sample once."""
    length, samples = epoch_length(watched.inputs), len(watched.inputs["train_targets"])
    rows = [call.rows for call in watched.steps]
    epochs = [rows[at : at + length] for at in range(0, len(rows), length)]
    visited = [sorted(row for batch in epoch for row in batch or ()) for epoch in epochs]
    return all(each == list(range(samples)) for each in visited)


def order(watched: Watched) -> str:
    """In which order the samples come, and whether a second training took the same."""
    rows = [call.rows for call in watched.steps]
    epoch = [row for batch in rows[: epoch_length(watched.inputs)] for row in batch or ()]
    if not epoch:
        return "none"
    if epoch == sorted(epoch):
        return "as they lie"
    again = _asked(watched.inputs, watched.answer.get("again", ()), watched.answers)
    return "as before" if rows == [call.rows for call in again if call.step] else "another"


def student_modes(watched: Watched) -> tuple[list[str], list[str]]:
    """In which modes the student answered when it learned, and when it was judged.

    At a quiet learning rate its weights never moved, so each answer can be computed again.
    """
    samples = _samples(watched.inputs)
    fresh, now = (network_from(watched.inputs["student"]) for _ in range(2))
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for call in watched.calls:
        if call.rows is None:
            continue
        some = samples[list(call.rows)]
        evaluation = _says(now.eval(), some)
        averages = [buffer.clone() for buffer in now.buffers()]
        training = _says(now.train(), some)
        if not call.step:  # what is only judged leaves the running averages alone
            for buffer, before in zip(now.buffers(), averages, strict=True):
                buffer.copy_(before)
        modes = {"training": training, "evaluation": evaluation}
        wanted = "training" if call.step else "evaluation"
        near = [mode for mode in (wanted, *modes) if _near(call.student, modes[mode])]
        if not near and _near(call.student, _says(fresh.eval(), some)):
            near = ["evaluation"]
        found[call.step].add(near[0] if near else "other samples")
    return sorted(found[True]), sorted(found[False])


def _near(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and float((left - right).abs().max()) < 1e-3


def judged_on(watched: Watched) -> str:
    """Which samples the student was judged on without learning from them."""
    samples = len(watched.inputs["train_targets"])
    rows = [row for call in watched.calls if not call.step for row in call.rows or ()]
    if not rows:
        return "nothing"
    return "validation" if all(row >= samples for row in rows) else "samples that it learned from"


def epochs_judged(watched: Watched) -> list[float]:
    """The loss on all of validation, each time that it was asked for once something had been learned."""
    samples = len(watched.inputs["train_targets"])
    totals: list[list[tuple[float, int]]] = []
    whole = True  # the next call on validation begins another round
    for at, call in enumerate(watched.calls):
        if call.step:
            whole = True
        elif any(each.step for each in watched.calls[:at]) and (
            call.rows is None or min(call.rows) >= samples
        ):
            totals += [[]] if whole else []
            value = watched_loss(call.student, call.teacher, call.labels).item()
            totals[-1].append((value, len(call.labels)))
            whole = sum(n for _, n in totals[-1]) >= len(watched.inputs["validation_targets"])
    return [sum(value * n for value, n in each) / sum(n for _, n in each) for each in totals]


def returned(watched: Watched) -> str:
    """Whose weights came back: those of the epoch with the least loss on validation, or of which other."""
    epochs, inputs = epochs_judged(watched), watched.inputs
    if not epochs:
        return "unknown"
    came = _loss_on(watched, "validation")
    if abs(came - min(epochs)) <= 1e-4 * abs(min(epochs)):
        return "the best"
    if abs(came - epochs[-1]) <= 1e-4 * abs(epochs[-1]):
        return "the last"
    kept = same(_states(inputs["student"]), _states(watched.answer["model"]))
    return "those that came in" if kept else "another"


def _loss_on(watched: Watched, split: str, network: Plain = None) -> float:
    inputs, targets = watched.inputs[f"{split}_inputs"], watched.inputs[f"{split}_targets"]
    knows = watched.answers[: len(targets)] if split == "train" else watched.answers[-len(targets) :]
    student = network_from(network or watched.answer["model"]).eval()
    return watched_loss(_says(student, inputs), knows, targets).item()


def learned(watched: Watched) -> bool:
    """Whether the loss on what it learned from fell."""
    return _loss_on(watched, "train") < 0.9 * _loss_on(watched, "train", watched.inputs["student"])


def moved(watched: Watched) -> bool:
    """Whether the weights are others than those that came in."""
    pairs = zip(_states(watched.inputs["student"]), _states(watched.answer["model"]), strict=True)
    return any(
        float((old[name] - new[name]).abs().max()) > 1e-5
        for old, new in pairs
        for name in ("weight", "bias")
        if name in old
    )


def evaluating(watched: Watched) -> bool:
    """Whether the network came back in evaluation mode."""
    return not watched.answer["model"]["training"]


def changed(watched: Watched) -> list[str]:
    """Which of the networks that came in is not as it was."""
    now = {name: watched.answer[f"{name}_after"] for name in ("student", "teacher")}
    return [name for name in now if not same(_states(watched.inputs[name]), _states(now[name]))]


def _states(network: Plain) -> Plain:
    return [layer["state"] for layer in network["layers"]]


def held(watched: Watched) -> tuple[list[int], int, bool]:
    """At which call of the loss ``after_step`` was called, how often its answer, and whether the zeros are there."""
    zero = [value == 0 for state in _states(watched.inputs["student"]) for value in state.values()]
    after = [value for state in _states(watched.answer["model"]) for value in state.values()]
    zeros = all(bool((now[gone] == 0).all()) for gone, now in zip(zero, after, strict=True))
    return list(watched.answer["made"]), len(watched.answer["kept"]), zeros


def own_gradients(watched: Watched) -> bool:
    """Whether every step's gradient is that of its own batch, but for its length, which may be clipped."""
    for kept in watched.answer["kept"]:
        call = watched.calls[kept["calls"] - 1] if kept["calls"] else None
        if call is None or kept["gradient"] is None or call.rows is None or not call.step:
            continue
        student = network_from(watched.inputs["student"]).train()
        says = student(watched.inputs["train_inputs"][list(call.rows)])
        watched_loss(says, call.teacher, call.labels).backward()  # type: ignore[no-untyped-call]
        due = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
        if float(nn.functional.cosine_similarity(due, kept["gradient"], dim=0)) < 0.999:
            return False
    return True
