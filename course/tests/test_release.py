"""The exercise is the source without solutions, whole or not at all, and the audit finds what would give one away."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tinypress_course
from mutants import SOURCE
from tinypress_course.audit import leaks_in_folder, leaks_in_wheel, secrets_of
from tinypress_course.cli.release import release
from tinypress_course.errors import CourseError, SourceError
from tinypress_course.module import read_module
from tinypress_course.release import release_module, released, without_measurements

MODULE = SOURCE.parent
REPOSITORY = Path(__file__).parents[2]
PACKAGE = Path(tinypress_course.__file__).parent
A_SOLUTION_LINE = "smallest_first = torch.argsort(weight.detach().abs().flatten(), stable=True)"


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def module(tmp_path):
    """A copy of the module to plant mistakes in."""
    return shutil.copytree(MODULE, tmp_path / "module", ignore=shutil.ignore_patterns("__pycache__"))


def _edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def test_a_solution_becomes_a_stub_where_it_stood():
    text = "def f(x):\n    ### BEGIN SOLUTION\n    y = 2\n\n    return x * y\n    ### END SOLUTION\n\n\t# é  \r\nf(1)"
    assert (
        released(text)
        == "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n\n\t# é  \r\nf(1)"
    )


def test_hidden_tests_go():
    text = "check(f)\n### BEGIN HIDDEN TESTS\ncheck(f, hidden=True)\n### END HIDDEN TESTS\n"
    assert released(text) == "check(f)\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x\n### BEGIN SOLUTION\ny", 2),
        ("x\ny\n### END SOLUTION", 3),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", 2),
        ("### BEGIN SOLUTION\n### END HIDDEN TESTS", 2),
        ("### BEGIN HIDDEN TESTS\n### BEGIN SOLUTION", 2),
        ("x = 1  ### BEGIN SOLUTION\n### END SOLUTION", 1),
    ],
)
def test_marks_come_in_pairs(text, line):
    with pytest.raises(SourceError, match=f"line {line}:"):
        released(text)


@pytest.fixture(scope="module")
def exercise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    assert release_module(MODULE, folder / "10_compression") == ()
    assert [each.name for each in folder.iterdir()] == ["10_compression"]
    return folder / "10_compression"


def test_every_other_line_of_the_source_stays_as_it_is(exercise):
    kept, inside = [], False
    for line in SOURCE.read_text().split("\n"):
        inside = inside or "### BEGIN" in line
        if not inside:
            kept.append(line)
        inside = inside and "### END" not in line
    stub = ("# YOUR CODE HERE", "raise NotImplementedError()")
    script = (exercise / SOURCE.name).read_text().split("\n")
    assert [line for line in script if line.strip() not in stub] == kept
    assert len(script) == len(kept) + 2 * SOURCE.read_text().count("### BEGIN SOLUTION")
    files = _files(exercise)
    assert set(files) == {SOURCE.name, "module.yaml", "README.md", "tests/test_compression.py"}
    for name in files.keys() - {SOURCE.name, "README.md"}:
        assert files[name] == (MODULE / name).read_bytes()


def test_what_the_reference_measured_is_not_given_away(exercise):
    full, given = ((each / "README.md").read_text() for each in (MODULE, exercise))
    assert "measured: begin" in full
    assert "measured" not in given.partition("## What you write")[2].partition("## What it builds on")[0]
    assert given == without_measurements(full)
    assert given.count("\n## ") == full.count("\n## ") - 1


def test_the_package_holds_the_exercise_of_this_source(exercise):
    held = {
        name: content for name, content in _files(PACKAGE / "exercise").items() if "__pycache__" not in name
    }
    assert held == _files(exercise.parent), "run: make exercise"


def test_nothing_is_written_over_work(tmp_path):
    work = tmp_path / "out"
    work.mkdir()
    (work / "compression_dev.py").write_text("mine")
    with pytest.raises(CourseError, match="is not empty"):
        release(MODULE, work)
    assert _files(work) == {"compression_dev.py": b"mine"}


def test_an_empty_folder_will_do(tmp_path, tito, monkeypatch, capsys):
    monkeypatch.setattr("tinypress_course.release.audit", lambda source, folder: ())
    (tmp_path / "out").mkdir()
    assert tito("release", str(MODULE), "out") == 0
    assert (tmp_path / "out" / "compression_dev.py").exists()
    assert "each of the 14 functions" in capsys.readouterr().out


def test_a_listed_file_must_be_there(module, tmp_path):
    (module / "README.md").unlink()
    with pytest.raises(CourseError, match=r"README\.md is missing"):
        release(module, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "before", "planted", "code"),
    [
        ("README.md", "## What you write", f"`{A_SOLUTION_LINE}`", "leak"),
        ("compression_dev.py", "pictures.masks(watch", f"# {A_SOLUTION_LINE}", "leak"),
        ("tests/test_compression.py", "FOLDER =", f"#    {A_SOLUTION_LINE}", "leak"),
        ("README.md", "## What you write", "check(calculate_sparsity, hidden=True)", "leak"),
        ("README.md", "## What you write", "### BEGIN HIDDEN TESTS", "mark"),
    ],
)
def test_a_leak_is_told_by_file_and_line_and_nothing_is_written(
    module, tmp_path, tito, capsys, file, before, planted, code
):
    _edit(module / file, before, f"{planted}\n{before}")
    text = (module / file).read_text()
    line = (released(text) if file.endswith(".py") else text).partition(planted)[0].count("\n") + 1
    assert tito("release", str(module), "out") == 1
    assert f"{file}:{line}: {code}: " in capsys.readouterr().out
    assert [each.name for each in tmp_path.iterdir()] == ["module"]


def test_leaks_are_found_in_notebooks_and_what_cannot_be_read_is_told(tmp_path):
    cells = [{"cell_type": "code", "source": ["import torch\n", f"    {A_SOLUTION_LINE}\n"]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}, indent=1))
    (tmp_path / "b.ipynb").write_text(json.dumps({"cells": [{"source": f"x = 1\n{A_SOLUTION_LINE}"}]}))
    (tmp_path / "c.pyc").write_bytes(b"\xa7\r\r\n\0\0\0\0")
    (tmp_path / "d.txt").write_text("with torch.no_grad():\n")  # everybody's line
    found = leaks_in_folder(tmp_path, secrets_of(MODULE))
    assert [(each.file, each.line, each.code) for each in found] == [
        ("a.ipynb", 7, "leak"),
        ("b.ipynb", 1, "leak"),
        ("c.pyc", 1, "unreadable"),
    ]


def test_a_solution_without_marks_is_found_by_what_it_does(module, tmp_path):
    text = (module / SOURCE.name).read_text()
    at = text.index("### BEGIN SOLUTION", text.index("def calculate_sparsity("))
    end = text.index("### END SOLUTION", at)
    bare = (
        text[:at]
        + text[at:end].removeprefix("### BEGIN SOLUTION\n").lstrip()
        + text[end:].removeprefix("### END SOLUTION")
    )
    (module / SOURCE.name).write_text(bare)
    found = release_module(module, tmp_path / "out")
    assert [(each.code, each.text.split()[0]) for each in found] == [("unsolved", "calculate_sparsity")]


def test_a_wrong_solution_is_found_by_what_it_does(module, tmp_path):
    _edit(module / SOURCE.name, "return zeros / total if total", "return 1 - zeros / total if total")
    found = release_module(module, tmp_path / "out")
    assert ("solved", "calculate_sparsity:") in [(each.code, each.text.split()[0]) for each in found]


def _wheel(tmp_path, project, *names):
    """The wheel of ``project``, built without a network from a copy of what is in the repository."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in names:
        if (project / name).is_dir():
            shutil.copytree(project / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(project / name, tmp_path / name)
    build = (
        "wheel",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-w",
        str(tmp_path / "dist"),
        str(tmp_path),
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *build],
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return next((tmp_path / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return _wheel(
        tmp_path_factory.mktemp("course"), REPOSITORY / "course", "pyproject.toml", "README.md", "src"
    )


def test_the_wheel_holds_the_package_and_no_solution(wheel):
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {f"tinypress_course/{name}" for name in _files(PACKAGE) if "__pycache__" not in name}
    assert shipped == package
    assert leaks_in_wheel(wheel, secrets_of(MODULE)) == ()


def test_a_solution_in_a_wheel_is_found(tmp_path):
    secrets = next(secret for secret in secrets_of(MODULE) if any(line == A_SOLUTION_LINE for line in secret))
    at = secrets.index(A_SOLUTION_LINE)
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("tinypress_course/checks/alone.py", f"x = 1\n{secrets[at]}\ny = 2\n")
        archive.writestr(
            "tinypress_course/checks/both.py", f"x = 1\n  {secrets[at]}\n\n    {secrets[at + 1]}\n"
        )
        archive.writestr("tinypress_course/exercise/10_compression/a.py", f"{secrets[at]}\n")
        archive.writestr("tinypress_course/exercise/10_compression/__pycache__/a.pyc", b"\xa7\r\r\n")
    found = {
        (each.file.rpartition("/")[2], each.line, each.code)
        for each in leaks_in_wheel(tmp_path / "a.whl", secrets_of(MODULE))
    }
    assert found == {("both.py", 2, "leak"), ("a.py", 1, "leak"), ("a.pyc", 1, "unreadable")}


def test_the_engine_ships_nothing_of_the_course(tmp_path):
    built = _wheel(tmp_path, REPOSITORY, "pyproject.toml", "README.md", "src")
    with zipfile.ZipFile(built) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in files} == {"tinypress"}
    assert [name for name, content in files.items() if b"tinypress_course" in content] == []


def test_plain_pytest_in_a_learners_folder_tells_what_is_missing(exercise):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=exercise,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    for function in read_module(exercise).functions:
        assert f"{function} is not written yet." in done.stdout
