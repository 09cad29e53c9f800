"""``tito grade`` on a class: the honest, the empty, the hostile and the broken, each with its own grade."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
import zipfile

import pytest
import yaml
from test_tradeoffs import MEASURED

from learning import MODULE
from mutants import mutated
from mutants.first_half import MUTANTS
from tinypress_course.errors import CourseError
from tinypress_course.grade import grading
from tinypress_course.grade.rubric import RUBRIC
from tinypress_course.marks import released
from tinypress_course.module import SOURCE

SOLVED = (MODULE / SOURCE).read_text(encoding="utf-8")


def hand_in(folder, learner, text, journal=None):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{learner}.zip", "w", zipfile.ZIP_DEFLATED) as file:
        card = {"format": 1, "learner": learner, "module": MODULE.name}
        file.writestr("submission.json", json.dumps(card))
        file.writestr(SOURCE, text)
        if journal is not None:
            file.writestr("journal.json", json.dumps(journal))


def whole_journal(rubric):
    guesses = [(1, name, 1) for names in rubric.tradeoffs.predictions.names.values() for name in names]
    claims = [
        (step, name, MEASURED[name])
        for step, names in rubric.tradeoffs.claims.names.items()
        for name in names
    ]
    measured = [(1, name, value) for name, value in MEASURED.items()]
    kinds = (("prediction", guesses), ("measurement", measured), ("claim", claims))
    return {
        "entries": [
            {"kind": kind, "step": step, "name": name, "value": value}
            for kind, lines in kinds
            for step, name, value in lines
        ]
    }


def impatient(folder):
    """The course's rubric with a limit of four seconds for a call."""
    data = yaml.safe_load(RUBRIC.read_text())
    data["limits"] |= {"call_seconds": 4, "import_seconds": 4}
    path = folder / "rubric.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


@pytest.mark.slow
def test_a_class_is_graded(tito, tmp_path, rubric, instead, sandbox, capsys, monkeypatch):
    monkeypatch.setattr(grading, "own_code", lambda: "the same")  # whoever edits it meanwhile
    opened = contextlib.nullcontext(sandbox)  # opened once for all tests
    monkeypatch.setattr("tinypress_course.cli.grade.open_sandbox", lambda *kind, **trust: opened)
    submissions = tmp_path / "submissions"
    hand_in(submissions, "ada", SOLVED, whole_journal(rubric))
    hand_in(submissions, "bob", released(SOLVED))
    hostile = instead("calculate_sparsity", "import os\nos._exit(0)")
    loops = instead("design_pipeline", "while True:\n    pass")
    cut = "# # Step 6"
    hand_in(submissions, "eve", hostile.partition(cut)[0] + cut + loops.partition(cut)[2])
    (submissions / "=carl.zip").write_bytes(b"PK")
    (submissions / "marks.csv").write_text("learner,mark\nAda,0.5\n")
    command = (
        "grade",
        "submissions",
        "--module",
        str(MODULE),
        "--rubric",
        impatient(tmp_path),
        "--seed",
        "3",
        "--jobs",
        "1",
    )
    assert tito(*command) == 0
    shown = capsys.readouterr().out
    assert "ada" in shown
    assert "Seed 3" in shown
    out = tmp_path / "submissions-graded"
    with (out / "gradebook.csv").open() as file:
        rows = {row["learner"]: row for row in csv.DictReader(file)}
    assert {name: row["automatic points"] for name, row in rows.items()} == {
        "ada": "100.00",
        "bob": "0.00",
        "eve": rows["eve"]["automatic points"],
        "'=carl": "0.00",
    }
    ada = rows["ada"]
    assert (ada["technical"], ada["trade-offs"], ada["application"]) == ("40.00", "25.00", "30.00")
    assert (ada["total"], ada["of"]) == ("95.00", "100.00")
    assert ada["flags"].startswith("like eve: count_parameters 100%")
    assert "calculate_sparsity" not in ada["flags"]
    assert rows["bob"]["total"] == "0.00"
    assert "the archive is broken" in rows["'=carl"]["flags"]
    data = {each["learner"]: each for each in json.loads((out / "gradebook.json").read_text())["learners"]}
    wrong = {each["function"]: each["text"] for each in data["eve"]["outcomes"] if not each["keeps"]}
    assert "ended by itself with exit code 0" in wrong["calculate_sparsity"]
    assert "gave no answer within 4 seconds" in wrong["design_pipeline"]
    assert set(wrong) <= {"calculate_sparsity", "design_pipeline", *USES_SPARSITY}
    assert "gave no answer within 4 seconds" in data["eve"]["applied"]["notes"][0]
    assert (out / "gradebook.html").read_text().count("<details") == 4
    assert not list((out / "state").glob("press-*"))
    # what is graded is not graded again: a new mark needs no examiner
    (submissions / "marks.csv").write_text("learner,mark\nada,1\nnobody,1\n")
    monkeypatch.setattr(grading, "Examination", None)
    assert tito(*command, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["total"] for each in told["learners"] if each["learner"] == "ada"] == [100]
    assert told["ignored_marks"] == ["nobody"]


USES_SPARSITY = {"prune_weights_by_magnitude", "prune_model_by_magnitude"}


def test_what_cannot_be_graded_is_refused(tito, tmp_path):
    hand_in(tmp_path / "submissions", "ada", SOLVED)
    for arguments, said in (
        (("nowhere",), "no such folder"),
        (("submissions", "--module", "nowhere"), "module.yaml is missing"),
        (("submissions", "--isolation", "hope"), "give one of bubblewrap, namespaces, landlock"),
        (("submissions", "--rubric", "none.yaml"), "no rubric"),
        (("submissions", "--out", "."), "other things"),
    ):
        with pytest.raises(CourseError, match=said):
            tito("grade", *arguments)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_class_of_thirty_is_graded_in_ten_minutes(tito, tmp_path, rubric, capsys):
    submissions = tmp_path / "submissions"
    for number in range(29):
        mutant = MUTANTS[number % len(MUTANTS)]
        text = SOLVED if number % 3 == 0 else mutated(mutant)
        hand_in(submissions, f"learner-{number:02}", f"{text}\n# {number}\n", whole_journal(rubric))
    hand_in(submissions, "empty", released(SOLVED))
    started, before = time.monotonic(), os.times()
    assert tito("grade", "submissions", "--module", str(MODULE), "--seed", "1") == 0
    seconds, after = time.monotonic() - started, os.times()
    busy = sum(after[:4]) - sum(before[:4])  # of this process and the examiners
    with capsys.disabled():
        print(f"\na class of 30: {seconds:.0f} s, {busy:.0f} s of processors")
    data = json.loads((tmp_path / "submissions-graded" / "gradebook.json").read_text())
    assert [each["failure"] for each in data["learners"] if each["failure"]] == []
    right = [each for each in data["learners"] if each["automatic"] == 100]
    assert len(right) == 10
    assert {each["applied"]["points"] for each in right} == {30}
    assert sum(each["automatic"] < 100 for each in data["learners"]) == 20
    assert busy < 2 * 600  # two processors for ten minutes; other work on them counts by the clock only
