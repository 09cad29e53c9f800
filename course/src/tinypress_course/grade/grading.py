"""Grade a folder of submissions: several examiners side by side, grades kept as they come, the slow ones ended.

``OUT/state/run.json`` holds the seed, ``OUT/state/grades/`` a file for each grade under a hash of all that it depends
on, so that a run that was stopped goes on with the same command.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

import tinypress_course
from tinypress_course.errors import CourseError
from tinypress_course.files import write_text
from tinypress_course.grade.examination import Examination, Gone, Show
from tinypress_course.grade.examiner import Plan
from tinypress_course.grade.result import Grade, read_grade
from tinypress_course.grade.rubric import Rubric
from tinypress_course.grade.sandbox import Sandbox
from tinypress_course.grade.submission import Submission
from tinypress_course.module import SOURCE

CLASS = "class"


MOST_SEED = (1 << 31) - 1


def choose_seed(out: Path, seed: int | None) -> int:
    """The seed of the run in ``out``: the one given, else that of the run to go on with, else a new one.

    Raises:
        CourseError: ``out`` holds something else than a run of ``tito grade``.
    """
    path = out / "state" / "run.json"
    if out.exists() and not path.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CourseError(f"{out} holds other things than a gradebook. Choose another folder with --out")
    if seed is None and path.exists():
        with contextlib.suppress(ValueError, OSError, KeyError, TypeError, OverflowError, RecursionError):
            seed = int(json.loads(path.read_text(encoding="utf-8"))["seed"])
    chosen = seed if seed is not None and 0 <= seed <= MOST_SEED else secrets.randbelow(MOST_SEED)
    write_text(path, json.dumps({"seed": chosen}))
    return chosen


def make_plan(module: Path, out: Path, seed: int, rubric: Rubric, sandbox: Sandbox) -> Plan:
    """What is handed to every examiner; ``run`` is a hash of all that grades depend on besides the submissions."""
    depends = hashlib.sha256(f"{seed} {sandbox.kind} {own_code()} {rubric.model_dump_json()}".encode())
    depends.update((module / SOURCE).read_bytes())
    stage = sandbox.stage
    return Plan(
        run=depends.hexdigest(),
        module=module.resolve(),
        out=out.resolve(),
        seed=seed,
        rubric=rubric,
        kind=sandbox.kind,
        stage=stage.folder,
        python=stage.python,
        shown=stage.shown,
        links=stage.links,
    )


def own_code() -> str:
    """A hash of the course's code: another version's grades may be others."""
    code = hashlib.sha256()
    for path in sorted(Path(tinypress_course.__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


def grade_all(submissions: Sequence[Submission], plan: Plan, jobs: int, show: Show) -> list[Grade]:
    """The grade of every submission, in their order; those known from before are not graded again.

    Raises:
        CourseError: no examiner can do its work here.
    """
    grades: dict[str, Grade] = {}
    waiting = []
    for each in submissions:
        if each.failure:
            grades[each.key] = Grade(learner=each.learner, source=each.source, failure=each.failure)
        elif (known := read_grade(plan.grade_path(each.key))) is not None:
            grades[each.key] = known
        else:
            waiting.append(each)
    show(CLASS, "graded", len(grades), len(submissions))
    with _Class(waiting, plan, min(jobs, len(waiting)), show) as running:
        for _ in waiting:
            key, grade = running.next()
            grades[key] = grade
            show(CLASS, "graded", len(grades), len(submissions))
    return [grades[each.key] for each in submissions]


class _Class:
    """Threads that hand submissions to an examiner each; leaving ends every process at once."""

    def __init__(self, waiting: Sequence[Submission], plan: Plan, jobs: int, show: Show) -> None:
        self._waiting: queue.SimpleQueue[Submission] = queue.SimpleQueue()
        self._done: queue.Queue[tuple[str, Grade] | Exception] = queue.Queue()
        for each in waiting:
            self._waiting.put(each)
        self._plan, self._show = plan, show
        self._one_is_ready = threading.Event()
        self._over = False
        self._examinations: list[Examination] = []
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(jobs)]

    def __enter__(self) -> _Class:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        for each in self._examinations:
            each.end()
        self._one_is_ready.set()
        for thread in self._threads:
            thread.join()

    def next(self) -> tuple[str, Grade]:
        """The next grade that is ready.

        Raises:
            CourseError: no examiner can do its work here.
        """
        done = self._done.get()
        if isinstance(done, Exception):
            raise done
        return done

    def _work(self, number: int) -> None:
        if number > 0:  # the first may have to train the network, and the others find it trained
            self._one_is_ready.wait()
        try:
            while not self._over and not self._waiting.empty():
                self._hand_out(f"examiner {number + 1}")
        except Exception as error:  # raised again where the grades are waited for
            self._done.put(error)
        finally:
            self._one_is_ready.set()

    def _hand_out(self, row: str) -> None:
        """Have one examiner grade what is waiting, until nothing is or it is gone."""
        examination = Examination(self._plan, row, self._show)
        self._examinations.append(examination)
        gone = False
        try:
            if self._over:  # leaving did not see this one
                examination.end()
            examination.wait_until_ready()
            self._one_is_ready.set()
            while not gone and not self._over:
                submission = self._waiting.get_nowait()
                try:
                    grade = examination.grade(submission)
                except Gone as error:
                    grade = Grade(learner=submission.learner, source=submission.source, failure=str(error))
                    gone = True
                self._done.put((submission.key, grade))
        except queue.Empty:
            return
        finally:
            examination.close()
