"""The exported package, and what is handed in."""

import json
import subprocess
import sys
import zipfile

import pytest

from learning import MODULE, fill
from tinypress import Engine
from tinypress_course.errors import CourseError
from tinypress_course.export import load_package, sha256_of
from tinypress_course.module import read_module

FUNCTIONS = read_module(MODULE).functions


def test_the_package_stands_on_its_own(tito, solved):
    assert tito("export", "10_compression") == 0
    script = (
        "import torch, my_compression as m; assert not m.NOT_WRITTEN; assert m.ENGINE.name.startswith('mine-');"
        "assert m.calculate_sparsity(torch.tensor([0.0, 1.0])) == 0.5;"
        "assert m.ENGINE.shrink is m.prune_layer_neurons and m.ENGINE.loss is m.DistillationLoss"
    )
    subprocess.run([sys.executable, "-c", script], cwd=solved / "my_compression", check=True)


def test_the_package_installs(tito, solved, tmp_path):
    tito("export")
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run([*command, target, solved / "my_compression"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (target / "my_compression" / "functions.py").exists()


def test_what_is_not_written_is_left_out_and_named(tito, exercise, capsys):
    fill(exercise / "compression_dev.py", "calculate_sparsity", "return 0.25")
    assert tito("export") == 0
    told = capsys.readouterr().out
    assert "do not hold yet: calculate_sparsity" in told
    exported = load_package(exercise)
    assert set(exported.not_written) == set(FUNCTIONS) - {"calculate_sparsity"}
    assert exported.functions["calculate_sparsity"](None) == 0.25
    assert exported.engine.score is Engine().score
    assert exported.source_sha256 == sha256_of(exercise / "compression_dev.py")


def test_another_text_makes_another_engine_name(tito, solved):
    tito("export")
    first = load_package(solved).engine.name
    work = solved / "compression_dev.py"
    work.write_text(work.read_text().replace("stable=True", "stable=False", 1))
    tito("export")
    assert load_package(solved).engine.name != first


def test_nothing_written_is_refused(tito, exercise):
    with pytest.raises(CourseError, match="no function is written"):
        tito("export")
    with pytest.raises(CourseError, match="tito export"):
        tito("run")


def test_submit_packs_work_and_journal(tito, solved, capsys):
    entry = {"kind": "prediction", "step": 1, "name": "file_kilobytes", "value": 400}
    (solved / "journal.json").write_text(json.dumps({"entries": [entry]}))
    assert tito("submit", "--learner", "Ada Lovelace") == 0
    assert "1 predictions" in capsys.readouterr().out
    packed = solved / "Ada Lovelace.zip"
    with zipfile.ZipFile(packed) as file:
        assert set(file.namelist()) == {"submission.json", "compression_dev.py", "journal.json"}
        assert file.read("compression_dev.py") == (solved / "compression_dev.py").read_bytes()
        assert json.loads(file.read("submission.json"))["learner"] == "Ada Lovelace"
        assert json.loads(file.read("journal.json"))["entries"] == [entry]
    first = packed.read_bytes()
    tito("submit", "--learner", "Ada Lovelace")
    assert packed.read_bytes() == first


@pytest.mark.parametrize("name", ["", "../../etc", "a/b", "-rf", "x" * 200])
def test_a_name_that_is_no_file_name_is_refused(tito, solved, name):
    with pytest.raises(CourseError, match="--learner"):
        tito("submit", "--learner", name)


def test_a_broken_file_or_journal_is_not_packed(tito, solved):
    (solved / "journal.json").write_text('{"entries": [{"kind": "boast"}]}')
    with pytest.raises(CourseError, match=r"journal\.json"):
        tito("submit", "--learner", "ada")
    (solved / "journal.json").unlink()
    work = solved / "compression_dev.py"
    work.write_text(work.read_text().replace("import copy", "import copy copy", 1))
    with pytest.raises(CourseError, match="line 1"):
        tito("submit", "--learner", "ada")
    assert not list(solved.glob("*.zip"))
