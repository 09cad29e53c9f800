"""An examiner that dies or hangs costs the submission that it had in hand; the others are graded by the next one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinypress_course.errors import CourseError
from tinypress_course.grade import grading
from tinypress_course.grade.examination import Examination, Gone
from tinypress_course.grade.examiner import Plan
from tinypress_course.grade.grading import choose_seed, grade_all
from tinypress_course.grade.result import Grade, read_grade, write_grade
from tinypress_course.grade.submission import Submission

# stands for an examiner: it is ready, and does with a submission what its learner is called
EXAMINER = """
import json, os, sys, time
sys.stdin.readline()
{start}
print(json.dumps({{"ready": True}}), flush=True)
for line in sys.stdin:
    learner = json.loads(line)["learner"]
    print(json.dumps({{"working": "f", "done": 1, "total": 2}}), flush=True)
    if learner.startswith("dies"):
        sys.exit("out of memory")
    if learner.startswith("hangs"):
        time.sleep(600)
    if learner.startswith("refused"):
        print(json.dumps({{"refused": "no sandbox"}}), flush=True)
        sys.exit()
    os.rename({grades!r} + "/" + learner, json.loads(os.environ["PLACES"])[learner])
    print(json.dumps({{"done": json.loads(os.environ["KEYS"])[learner]}}), flush=True)
"""


def silent(row, what, done, total):
    pass


@pytest.fixture
def plan(tmp_path, rubric, monkeypatch):
    """A plan whose examiners are the script above."""
    (tmp_path / "script").mkdir()
    short = {"technical_seconds": 0.5, "application_seconds": 0.5}
    limits = rubric.limits.model_copy(update=short)
    monkeypatch.setattr("tinypress_course.grade.examination._PATIENCE", 0.5)
    plan = Plan(
        run="run", module=tmp_path, out=tmp_path, seed=1, rubric=rubric.model_copy(update={"limits": limits}),
        kind="none", stage=tmp_path, python=Path(sys.executable), shown=(), links=(),
    )  # fmt: skip
    script(monkeypatch, tmp_path)
    return plan


def script(monkeypatch, folder, start="pass"):
    text = EXAMINER.format(start=start, grades=str(folder / "script"))
    monkeypatch.setattr(Examination, "command", (sys.executable, "-c", text))


def hand_in(plan, monkeypatch, *learners):
    """Submissions, with the grades that the script will give them."""
    submissions = [Submission(name, f"{name}.zip", {"compression_dev.py": ""}) for name in learners]
    places = {each.learner: str(plan.grade_path(each.key)) for each in submissions}
    for each in submissions:
        write_grade(
            plan.out / "script" / each.learner, Grade(learner=each.learner, source=each.source, technical=3)
        )
        Path(places[each.learner]).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("PLACES", __import__("json").dumps(places))
    monkeypatch.setenv("KEYS", __import__("json").dumps({each.learner: each.key for each in submissions}))
    return submissions


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_others_are_graded_all_the_same(plan, monkeypatch, jobs):
    submissions = hand_in(plan, monkeypatch, "ada", "dies", "bob", "hangs", "cleo", "dies2")
    unread = Submission("dora", "dora.zip", failure="the archive is broken")
    grades = {grade.learner: grade for grade in grade_all([*submissions, unread], plan, jobs, silent)}
    assert {name: grade.technical for name, grade in grades.items() if not grade.failure} == {
        "ada": 3,
        "bob": 3,
        "cleo": 3,
    }
    assert "brought the grader down (out of memory)" in grades["dies"].failure
    assert "took longer than 1.5 seconds" in grades["hangs"].failure
    assert grades["dora"].failure == "the archive is broken"


def test_what_was_graded_is_not_graded_again_and_what_failed_is(plan, monkeypatch):
    submissions = hand_in(plan, monkeypatch, "ada", "dies")
    grade_all(submissions, plan, 1, silent)
    assert read_grade(plan.grade_path(submissions[0].key)) is not None
    started = []

    class Counted(Examination):
        def grade(self, submission):
            started.append(submission.learner)
            return super().grade(submission)

    monkeypatch.setattr(grading, "Examination", Counted)
    again = grade_all(submissions, plan, 1, silent)
    assert started == ["dies"]
    assert again[0].technical == 3


def test_ctrl_c_ends_the_examiners_and_keeps_what_is_done(plan, monkeypatch):
    submissions = hand_in(plan, monkeypatch, "ada", "bob")
    running = []

    class Seen(Examination):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            running.append(self._process)

    def interrupted(row, what, done, total):
        if row == "class" and done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(grading, "Examination", Seen)
    with pytest.raises(KeyboardInterrupt):
        grade_all(submissions, plan, 1, interrupted)
    assert running[0].poll() is not None
    assert read_grade(plan.grade_path(submissions[0].key)) is not None


def test_no_examiner_at_all_is_refused_with_the_reason(plan, monkeypatch, tmp_path):
    submissions = hand_in(plan, monkeypatch, "refused")
    with pytest.raises(CourseError, match="no sandbox"):
        grade_all(submissions, plan, 1, silent)
    script(monkeypatch, tmp_path, start="sys.exit('no PyTorch')")
    with pytest.raises(CourseError, match="no PyTorch"):
        grade_all(submissions, plan, 2, silent)


def test_a_grade_that_was_damaged_is_made_again(plan, monkeypatch):
    (submission,) = hand_in(plan, monkeypatch, "ada")
    plan.grade_path(submission.key).write_text("{")
    (grade,) = grade_all([submission], plan, 1, silent)
    assert grade.technical == 3


def test_an_ended_examiner_says_so(plan, monkeypatch):
    (submission,) = hand_in(plan, monkeypatch, "dies")
    examination = Examination(plan, "row", silent)
    examination.wait_until_ready()
    with pytest.raises(Gone):
        examination.grade(submission)
    examination.close()


def test_a_seed_is_kept_with_its_run_and_no_other_folder_is_written_to(tmp_path):
    out = tmp_path / "out"
    first = choose_seed(out, None)
    assert choose_seed(out, None) == first
    assert choose_seed(out, 5) == 5
    assert choose_seed(out, None) == 5
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(CourseError, match="other things"):
        choose_seed(tmp_path, None)


def test_a_fault_of_our_own_is_raised_and_does_not_wait_for_ever(plan, monkeypatch):
    submissions = hand_in(plan, monkeypatch, "ada")
    monkeypatch.setattr(grading, "Examination", None)
    with pytest.raises(TypeError):
        grade_all(submissions, plan, 1, silent)
