"""One's own task: the file that ``tinypress new`` writes is compared, verified and measured as it stands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinypress.cli.main import main


def tinypress(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinypress", *arguments], capture_output=True, text=True, cwd=folder
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task file as it is written."""
    folder = tmp_path_factory.mktemp("own")
    done = tinypress(folder, "new", "task.py")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def folder(own: Path) -> Path:
    """The same after a comparison, which takes a minute."""
    folder = own
    done = tinypress(folder, "compare", "task.py", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "printed.json").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_it_runs_as_it_stands(folder: Path) -> None:
    printed = json.loads((folder / "printed.json").read_text())
    assert printed == json.loads((folder / "runs" / "task" / "receipt.json").read_text())
    assert len(printed["candidates"]) >= 12
    for candidate in printed["candidates"]:
        path = folder / "runs" / "task" / candidate["artifact"]["path"]
        assert path.stat().st_size == candidate["artifact"]["bytes"]


@pytest.mark.slow
def test_it_can_be_verified(folder: Path) -> None:
    done = tinypress(folder, "verify", "runs/task", "--task", "task.py", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["holds"] is True


@pytest.mark.slow
def test_the_run_replays_from_its_recipe(folder: Path) -> None:
    again = tinypress(folder, "press", "task.py", "--recipe", "runs/task/recipe.json", "--out", "again")
    assert again.returncode == 0, again.stderr
    for path in (folder / "runs" / "task" / "artifacts").iterdir():
        assert (folder / "again" / "artifacts" / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_artifact_is_measured_by_itself(own: Path) -> None:
    done = tinypress(own, "measure", "task.py", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_the_file_is_not_written_over(own: Path) -> None:
    before = (own / "task.py").read_bytes()
    done = tinypress(own, "new", "task.py")
    assert done.returncode == 2
    assert "exists" in done.stderr
    assert (own / "task.py").read_bytes() == before


@pytest.mark.parametrize(
    "command", ["demo", "tasks", "new", "measure", "compare", "press", "verify", "diagnose", "report"]
)
def test_every_command_has_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tinypress", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "Usage" in capsys.readouterr().out
