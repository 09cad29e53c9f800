"""The process that grades submissions, one after the other: ``python -m tinypress_course.grade.examiner``.

It reads lines of JSON, first the ``Plan``, then a submission each, and answers with lines of JSON: how far it is, and
``{"done": key}`` once a grade is written. It is a process of its own because it handles what learners' code has sent:
should an answer bring it down, the others are graded all the same.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from pydantic import BaseModel, ConfigDict

from tinypress import Task, find_task
from tinypress_course.cells import Cell, read_cells
from tinypress_course.errors import CourseError, JournalError, SourceError
from tinypress_course.grade.application import Budget, apply, draw_budget
from tinypress_course.grade.child import Jail
from tinypress_course.grade.confine import die_with_parent
from tinypress_course.grade.likeness import prints_of
from tinypress_course.grade.result import Applied, Grade, Understanding, write_grade
from tinypress_course.grade.rubric import Rubric
from tinypress_course.grade.sandbox import Kind, Sandbox
from tinypress_course.grade.stage import Stage
from tinypress_course.grade.submission import NOTEBOOK, Submission
from tinypress_course.grade.technical import grade_functions
from tinypress_course.grade.tradeoffs import judge_journal
from tinypress_course.grade.work import Work, read_own_journal, read_work
from tinypress_course.marks import released
from tinypress_course.module import SOURCE, Module, read_module
from tinypress_course.standing import points_of

_OWN_MEMORY = 6 << 30  # what a hostile answer may make this process ask for
Tell = Callable[..., None]


class Plan(BaseModel):
    """What all submissions of a run are graded with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    module: Path
    out: Path
    seed: int
    rubric: Rubric
    kind: Kind
    stage: Path
    python: Path
    shown: tuple[Path, ...]
    links: tuple[tuple[Path, str], ...]

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox that was chosen and laid out before."""
        return Sandbox(self.kind, Stage(self.stage, self.python, self.shown, self.links))

    def grade_path(self, key: str) -> Path:
        """Where the grade of the submission with this key is kept."""
        name = hashlib.sha256(f"{self.run} {key}".encode()).hexdigest()
        return self.out / "state" / "grades" / f"{name}.json"


class Jails:
    """One jail at a time, and a new one where that one is broken; the next learner's starts ahead."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._next = self._start()
        self._jail: Jail | None = None

    def _start(self) -> Jail:
        return Jail(self._plan.sandbox, self._plan.rubric.limits)

    def current(self) -> Jail:
        """The jail of this learner."""
        if self._jail is not None and self._jail.broken:
            self.leave()
        if self._jail is None:
            self._jail, self._next = self._next, self._start()
        return self._jail

    def leave(self) -> None:
        """End this learner's jail."""
        if self._jail is not None:
            self._jail.close()
            self._jail = None

    def close(self) -> None:
        """End all of them."""
        self.leave()
        self._next.close()


class Examiner:
    """What is prepared once, and how a submission is graded with it."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan, self._tell = plan, tell
        self.module: Module = read_module(plan.module)
        source = (plan.module / SOURCE).read_text(encoding="utf-8")
        self.points = points_of(read_cells(plan.module / SOURCE))
        self.given = _cells_of(released(source))
        self.task: Task = find_task(plan.rubric.application.task, progress=self._working)
        self.budget: Budget = draw_budget(self.task, plan.rubric.application, plan.seed)
        self.jails = Jails(plan)

    def _working(self, what: str, done: int, total: int) -> None:
        self._tell(working=what, done=done, total=total)

    def _judging(self, function: str) -> None:
        functions = self.module.functions
        self._tell(working=function, done=functions.index(function), total=len(functions))

    def grade(self, submission: Submission) -> Grade:
        """Everything about one submission but the teacher's mark."""
        started = time.monotonic()
        plan = self._plan
        grade = Grade(learner=submission.learner, source=submission.source, isolation=plan.kind)
        try:
            work = read_work(submission)
        except SourceError as error:
            return grade.model_copy(update={"failure": str(error)})
        try:
            understanding = judge_journal(read_own_journal(submission), plan.rubric.tradeoffs)
        except JournalError as error:
            understanding = Understanding(problem=str(error))
        try:
            outcomes = tuple(
                grade_functions(
                    work,
                    self.module,
                    self.points,
                    self.jails.current,
                    plan.seed,
                    plan.rubric.limits,
                    note=self._judging,
                )
            )
            applied = self._apply(work, frozenset(o.function for o in outcomes if o.keeps))
        finally:
            self.jails.leave()
        automatic = sum(outcome.earned for outcome in outcomes)
        prints = prints_of(work.cells, self.given, plan.rubric.likeness)
        both = SOURCE in submission.files and NOTEBOOK in submission.files
        found = {
            "outcomes": outcomes,
            "technical": automatic * plan.rubric.technical.points / sum(self.points.values()),
            "understanding": understanding,
            "applied": applied,
            "notes": (f"script and notebook are both there; the script {SOURCE} was graded",) if both else (),
            "prints": {name: tuple(sorted(each)) for name, each in prints.items()},
            "seconds": time.monotonic() - started,
        }
        return grade.model_copy(update=found)

    def _apply(self, work: Work, passed: frozenset[str]) -> Applied:
        jail, rubric = self.jails.current(), self._plan.rubric
        with tempfile.TemporaryDirectory(dir=self._plan.out / "state", prefix="press-") as folder:
            return apply(work, passed, self.budget, self.task, rubric, jail, Path(folder), self._working)


def _cells_of(text: str) -> list[Cell]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SOURCE
        path.write_text(text, encoding="utf-8")
        return read_cells(path)


def submission_from(data: Mapping[str, Any]) -> Submission:
    """A submission as it comes on a line."""
    return Submission(data["learner"], data["source"], data["files"], data["failure"])


def main(lines: IO[str], answers: IO[str]) -> None:
    """Grade what comes, until nothing more does."""

    def tell(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    die_with_parent()
    torch.set_num_threads(1)
    plan = Plan.model_validate_json(lines.readline())
    try:
        examiner = Examiner(plan, tell)
    except CourseError as error:
        tell(refused=str(error))
        return
    resource.setrlimit(resource.RLIMIT_AS, (_OWN_MEMORY, resource.RLIM_INFINITY))
    tell(ready=True, budget_bytes=examiner.budget.most_bytes, float_bytes=examiner.budget.float_bytes)
    try:
        for line in lines:
            submission = submission_from(json.loads(line))
            grade = examiner.grade(submission)
            write_grade(plan.grade_path(submission.key), grade)
            tell(done=submission.key)
    except CourseError as error:  # the sandbox no longer starts
        tell(refused=str(error))
    finally:
        examiner.jails.close()


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
