"""The script as a notebook and back: the same cells, nbgrader's metadata, equal bytes, and nobody's work lost."""

import json
import os
import shutil

import nbformat
import pytest

from mutants import SOURCE
from tinypress_course.cells import definitions, read_cells
from tinypress_course.cli.notebook import notebook
from tinypress_course.errors import CourseError
from tinypress_course.module import work_file


@pytest.fixture
def module(tmp_path):
    folder = tmp_path / "10_compression"
    folder.mkdir()
    for name in ("compression_dev.py", "module.yaml"):
        shutil.copy(SOURCE.parent / name, folder / name)
    _aged(folder / "compression_dev.py", 100)
    return folder


def _aged(path, seconds):
    """Set the time of the last change to ``seconds`` after a moment long ago."""
    os.utime(path, (1_000_000 + seconds, 1_000_000 + seconds))


def test_the_notebook_is_valid_and_keeps_what_graders_need(module):
    assert notebook(module) == 0
    path = module / "compression_dev.ipynb"
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    ids = [cell.id for cell in made.cells]
    assert len(set(ids)) == len(ids)
    assert (made.nbformat, made.nbformat_minor) == (4, 5)
    assert read_cells(path) == read_cells(SOURCE)
    assert definitions(read_cells(path)) == definitions(read_cells(SOURCE))
    graded = {cell.metadata.nbgrader.grade_id: cell.id for cell in made.cells if "nbgrader" in cell.metadata}
    assert graded == {name: name for name in graded}
    assert len(graded) == 28


def test_equal_scripts_give_equal_bytes(module, tmp_path, capsys):
    for name in ("a.ipynb", "b.ipynb"):
        assert notebook(module, out=tmp_path / name) == 0
    assert (tmp_path / "a.ipynb").read_bytes() == (tmp_path / "b.ipynb").read_bytes()
    assert notebook(module, out=tmp_path / "a.ipynb") == 0
    assert "already" in capsys.readouterr().out


def test_one_cell_changed_is_one_cell_changed(module, tmp_path):
    notebook(module, out=tmp_path / "before.ipynb")
    script = module / "compression_dev.py"
    script.write_text(script.read_text().replace("share_in_convolutions=...)", "share_in_convolutions=0.9)"))
    notebook(module, out=tmp_path / "after.ipynb")
    before, after = (
        json.loads((tmp_path / name).read_text())["cells"] for name in ("before.ipynb", "after.ipynb")
    )
    assert [old["source"] for old, new in zip(before, after, strict=True) if old != new] == [
        ["predict(1, file_kilobytes=..., share_in_convolutions=...)"]
    ]


def test_there_and_back_is_the_same_script(module, tmp_path):
    notebook(module)
    ran = nbformat.read(module / "compression_dev.ipynb", as_version=4)
    ran.cells[1].outputs = [nbformat.v4.new_output("stream", text="a measurement")]
    ran.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    nbformat.write(ran, module / "compression_dev.ipynb")
    assert notebook(module, out=tmp_path / "back.py", to_script=True) == 0
    assert (tmp_path / "back.py").read_bytes() == SOURCE.read_bytes()


def test_a_notebook_that_was_changed_later_is_kept(module):
    notebook(module)
    path = module / "compression_dev.ipynb"
    path.write_text(path.read_text().replace("zeros / total if total", "1.0 if total"))
    work = path.read_bytes()
    _aged(path, 200)
    with pytest.raises(CourseError, match=r"changed after compression_dev\.py"):
        notebook(module)
    assert path.read_bytes() == work
    assert work_file(module) == path
    assert notebook(module, force=True) == 0
    assert b"zeros / total if total" in path.read_bytes()


def test_a_script_that_was_changed_later_is_kept(module):
    notebook(module)
    script = module / "compression_dev.py"
    script.write_text(script.read_text().replace("zeros / total if total", "1.0 if total"))
    _aged(module / "compression_dev.ipynb", 150)
    _aged(script, 200)
    assert work_file(module) == script
    with pytest.raises(CourseError, match=r"changed after compression_dev\.ipynb"):
        notebook(module, to_script=True)
    assert "1.0 if total" in script.read_text()
    assert notebook(module) == 0  # the notebook is the older one, and follows
    assert "1.0 if total" in (module / "compression_dev.ipynb").read_text()


def test_what_is_no_notebook_is_refused(module):
    with pytest.raises(CourseError, match="is missing"):
        notebook(module, to_script=True)
    (module / "compression_dev.ipynb").write_text("{")
    with pytest.raises(CourseError, match="cannot be read as a notebook"):
        notebook(module, to_script=True)
