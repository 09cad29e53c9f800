"""The handle on a running examiner: submissions go in, grades come out, and whatever takes too long is ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tinypress_course.errors import CourseError
from tinypress_course.grade.examiner import Plan
from tinypress_course.grade.result import Grade, read_grade
from tinypress_course.grade.submission import Submission

_PATIENCE = 120.0  # seconds beyond the limits of a learner, for what the examiner itself does
_STARTING = 900.0  # the task's network is trained where it never was
Show = Callable[[str, str, int, int], None]


class Gone(Exception):
    """The examiner ended while it had a submission in hand; the text says so for its teacher."""


class Examination:
    """One examiner's process; ``row`` is the name of its bar."""

    command = (sys.executable, "-m", "tinypress_course.grade.examiner")

    def __init__(self, plan: Plan, row: str, show: Show) -> None:
        self._plan, self._row, self._show = plan, row, show
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            self.command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self._late = False

    def wait_until_ready(self) -> None:
        """Hand over the plan and wait.

        Raises:
            CourseError: it does not start.
        """
        self._send(self._plan.model_dump_json())
        for facts in self._heard(_STARTING, ""):
            if facts.get("ready"):
                return
        raise CourseError(f"the examiner does not start: {self._last_words()}")

    def grade(self, submission: Submission) -> Grade:
        """The grade of ``submission``.

        Raises:
            Gone: the examiner was brought down, or had to be ended.
            CourseError: the sandbox no longer starts.
        """
        limits = self._plan.rubric.limits
        facts = {name: getattr(submission, name) for name in ("learner", "source", "failure")}
        self._send(json.dumps({**facts, "files": dict(submission.files)}))
        seconds = limits.technical_seconds + limits.application_seconds + _PATIENCE
        for told in self._heard(seconds, submission.learner):
            if told.get("done") == submission.key:
                grade = read_grade(self._plan.grade_path(submission.key))
                if grade is not None:
                    return grade
        self.end()
        if self._late:
            raise Gone(f"grading it took longer than {seconds:g} seconds")
        raise Gone(f"grading it brought the grader down ({self._last_words()}); nothing of it was counted")

    def end(self) -> None:
        """End the examiner's process, from any thread; what it had shut in ends with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it, and close the files that lead to it."""
        self.end()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                if file is not None:
                    file.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _heard(self, seconds: float, learner: str) -> Iterator[dict[str, Any]]:
        """What the examiner tells, until it ends or ``seconds`` are over."""
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._end_late)
        timer.start()
        try:
            for line in self._process.stdout:
                facts = json.loads(line)
                if "refused" in facts:
                    raise CourseError(facts["refused"])
                if "working" in facts:
                    what = f"{learner[:20]} {facts['working']}".strip()
                    self._show(self._row, what, facts["done"], facts["total"])
                else:
                    yield facts
        finally:
            timer.cancel()

    def _end_late(self) -> None:
        self._late = True
        self.end()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read(1 << 20).decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else f"exit code {self._process.poll()}"
