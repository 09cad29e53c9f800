"""What a check is: a promise of one function, the inputs it is tried on, and a judge of the answers.

The judge sees plain data only (see ``probes.py``), so that the function may run in another process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tinypress_course.models import Plain

Answer = Mapping[str, Plain]


@dataclass(frozen=True)
class Draw:
    """Where a check's numbers come from; another ``seed`` gives fresh ones."""

    seed: int

    @property
    def choice(self) -> random.Random:
        """Whole numbers and picks, the same at every use."""
        return random.Random(self.seed)

    def normal(self, *shape: int, salt: int = 0) -> Tensor:
        """Standard normal numbers of ``shape``; another ``salt`` gives others of the same seed."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(self.seed * 1009 + salt))


@dataclass(frozen=True)
class Case:
    """One call: its inputs as plain data, and the call as a person would write it."""

    inputs: Mapping[str, Plain]
    shown: str


@dataclass(frozen=True)
class Check:
    """``promise`` holds for ``function`` on every one of ``cases``, which come smallest first.

    ``wrong`` says in words what is wrong with an answer, without giving the right one away, or returns None.
    """

    function: str
    promise: str
    cases: Callable[[Draw], Iterator[Case]]
    wrong: Callable[[Case, Answer], str | None]
    hidden: bool = False


@dataclass(frozen=True)
class Failure:
    """The smallest case on which a function breaks its promise, and a few ``more`` that break it."""

    check: Check
    case: Case
    answer: Answer
    problem: str
    more: tuple[tuple[Case, Answer], ...] = ()


Call = Callable[[str, Mapping[str, Plain]], Answer]


@dataclass(frozen=True)
class Verdict:
    """All promises of one function: those kept, and the failures of the others."""

    function: str
    kept: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = field(default=())

    @property
    def right(self) -> bool:
        """Whether every promise was kept."""
        return not self.failures


def judge(function: str, checks: tuple[Check, ...], call: Call, seed: int, *, hidden: bool) -> Verdict:
    """Try ``checks`` of ``function`` with inputs drawn from ``seed``; hidden ones only where ``hidden``."""
    kept, failures = [], []
    for check in checks:
        if check.function != function or (check.hidden and not hidden):
            continue
        failure = first_failure(check, call, seed)
        if failure is None:
            kept.append(check.promise)
        else:
            failures.append(failure)
    return Verdict(function, tuple(kept), tuple(failures))


def first_failure(check: Check, call: Call, seed: int, most: int = 4) -> Failure | None:
    """The smallest case that breaks the check's promise, with the next ones up to ``most`` in all."""
    broken: list[tuple[Case, Answer, str]] = []
    for case in check.cases(Draw(seed)):
        answer = call(check.function, case.inputs)
        problem = check.wrong(case, answer)
        if problem is not None:
            broken.append((case, answer, problem))
        if len(broken) == most or "NotImplementedError" in answer.get("kinds", ()):
            break
    if not broken:
        return None
    return Failure(check, *broken[0], more=tuple((case, answer) for case, answer, _ in broken[1:]))
