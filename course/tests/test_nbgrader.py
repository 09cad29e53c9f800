"""nbgrader gives the automatic points that the course gives: to the solution, the empty exercise and wrong ones."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mutants import SOURCE, Mutant, mutated
from tinypress_course.cells import load_definitions, read_cells
from tinypress_course.cli.notebook import notebook
from tinypress_course.feedback import evaluate
from tinypress_course.marks import released
from tinypress_course.module import read_module

pytest.importorskip("nbgrader")

ASSIGNMENT = "10_compression"
NOTEBOOK = "compression_dev.ipynb"
WRONG = {
    "density": Mutant("calculate_sparsity", "return zeros / total if", "return 1 - zeros / total if"),
    "largest": Mutant("prune_weights_by_magnitude", "smallest_first[: round(", "smallest_first[-round("),
    "truncated": Mutant("quantize_layer_weights", "torch.round(rows /", "torch.trunc(rows /"),
    "unscaled": Mutant("DistillationLoss", " * self.temperature**2", ""),
    "greedy": Mutant("design_pipeline", "room = 0.85 * budget_bytes", "room = 2 * budget_bytes"),
}
READ_POINTS = """
import json
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as book:
    print(json.dumps({student.id: {grade.name: [grade.auto_score, grade.max_score] for grade in
        book.find_submission_notebook("compression_dev", "10_compression", student.id).grades}
        for student in book.students}))
"""


def _run_in_each(folders, *command):
    """Run Python in every folder at the same time, with nothing of this user's Jupyter; what each printed."""
    path = os.pathsep.join(
        (str(Path(sys.executable).parent), os.environ["PATH"])
    )  # nbgrader calls alembic by name
    processes = []
    for folder in folders:
        own = {
            name: str(folder / ".jupyter")
            for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, **own, "PATH": path}
        processes.append(subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **pipes))
    ended = [process.communicate(timeout=500) for process in processes]
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [out for out, _ in ended]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nbgrader")
    assert notebook(SOURCE.parent, out=folder / "source" / ASSIGNMENT / NOTEBOOK) == 0
    _run_in_each([folder], "-m", "nbgrader", "generate_assignment", ASSIGNMENT)
    return folder


@pytest.fixture(scope="module")
def submitted(course):
    """Each learner's notebook: the released one, with the solution cells of a script written into it."""
    scripts = {"solution": SOURCE.read_text(), **{name: mutated(wrong) for name, wrong in WRONG.items()}}
    files = {}
    for learner, script in {"empty": None, **scripts}.items():
        handed_in = nbformat.read(course / "release" / ASSIGNMENT / NOTEBOOK, as_version=4)
        if script is not None:
            work = course / f"{learner}.py"
            work.write_text(script)
            written = {cell.grade_id: cell.text for cell in read_cells(work) if cell.role == "solution"}
            for cell in handed_in.cells:
                name = cell.metadata.get("nbgrader", {}).get("grade_id")
                cell.source = written.get(name, cell.source)
        files[learner] = course / "submitted" / learner / ASSIGNMENT / NOTEBOOK
        files[learner].parent.mkdir(parents=True)
        nbformat.write(handed_in, files[learner])
    return files


@pytest.fixture(scope="module")
def autograded(course, submitted, tmp_path_factory):
    """Two copies of the course, each with half of the learners, graded at the same time by one command each."""
    folders = [tmp_path_factory.mktemp("half") / "course" for _ in range(2)]
    for at, folder in enumerate(folders):
        others = shutil.ignore_patterns(*list(submitted)[1 - at :: 2])
        shutil.copytree(course, folder, ignore=others)
    _run_in_each(folders, "-m", "nbgrader", "autograde", ASSIGNMENT)
    return folders


@pytest.fixture(scope="module")
def points(autograded):
    """By learner and test cell: points given, points possible."""
    first, second = map(json.loads, _run_in_each(autograded, "-c", READ_POINTS))
    return {**first, **second}


def test_the_assignment_is_the_released_exercise(course):
    cells = nbformat.read(course / "release" / ASSIGNMENT / NOTEBOOK, as_version=4).cells
    assert [cell.source for cell in cells] == [released(cell.text) for cell in read_cells(SOURCE)]


@pytest.mark.slow
def test_points_are_those_of_the_course(submitted, points):
    assert points.keys() == submitted.keys()
    most = {cell.grade_id: cell.points for cell in read_cells(SOURCE) if cell.role == "test"}
    for learner, path in submitted.items():
        functions = load_definitions(path)
        expected = {
            f"test_{name}": 0.0 if evaluate(name, functions, seed=0, hidden=True) else most[f"test_{name}"]
            for name in read_module(SOURCE.parent).functions
        }
        assert {cell: given for cell, (given, _) in points[learner].items()} == expected, learner
        assert {cell: possible for cell, (_, possible) in points[learner].items()} == most


@pytest.mark.slow
def test_points_tell_right_from_wrong(points):
    assert all(given == possible for given, possible in points["solution"].values())
    assert all(given == 0 for given, _ in points["empty"].values())
    for learner, wrong in WRONG.items():
        assert points[learner][f"test_{wrong.function}"][0] == 0


@pytest.mark.slow
def test_nothing_is_measured_while_grading(autograded):
    (work,) = (each for folder in autograded for each in folder.glob(f"autograded/solution/{ASSIGNMENT}"))
    cells = nbformat.read(work / NOTEBOOK, as_version=4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    problems = [output.evalue for output in outputs if output.output_type == "error"]
    assert problems[0] == "measurements are not taken while a notebook is graded"
    assert not (work / "runs").exists()
