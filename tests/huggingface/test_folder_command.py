"""A folder on the command line: with the user's data, or refused with the remedy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from huggingface.tiny_folder import write_folder
from tinypress.cli.found import task_of
from tinypress.cli.new import new
from tinypress.errors import TaskError
from tinypress.train.loop import silent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``bert`` and the file data.py that the command writes."""
    transformers.utils.logging.disable_progress_bar()
    home = tmp_path_factory.mktemp("home")
    write_folder(home / "bert")
    new(home / "data.py", huggingface=True)
    return home


def test_the_written_file_makes_a_task_of_a_folder(home: Path) -> None:
    task = task_of(str(home / "bert"), str(home / "data.py"), 0, silent)
    assert (task.name, len(task.test), task.metric) == ("data", 96, "cosine")
    assert task.companions is not None
    assert set(task.companions(task.model).files) == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    }  # fmt: skip
    assert task.build is not None
    assert task.build()(*task.example_inputs).shape == (2, 32)


WRONG = {
    "number.py": ("task = 3", "not a function task"),
    "fails.py": (
        "def task(model, tokenizer):\n    return model.no_such",
        "its function failed: AttributeError",
    ),
    "other.py": ("def task(model, tokenizer):\n    return model", "it returned a BertModel"),
    "fewer.py": ("def task():\n    return None", "its function failed: TypeError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_data_of_the_wrong_kind(home: Path, name: str) -> None:
    text, due = WRONG[name]
    (home / name).write_text(text)
    with pytest.raises(TaskError, match=re.escape(due)):
        task_of(str(home / "bert"), str(home / name), 0, silent)


def test_folder_and_data_go_together(home: Path) -> None:
    with pytest.raises(TaskError, match="tinypress new --huggingface"):
        task_of(str(home / "bert"), None, 0, silent)
    with pytest.raises(TaskError, match="there is no such folder"):
        task_of(str(home / "none"), str(home / "data.py"), 0, silent)
    with pytest.raises(TaskError, match="Leave it out"):
        task_of("watch", str(home / "data.py"), 0, silent)


def tinypress(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinypress", *arguments], capture_output=True, text=True, cwd=home
    )


@pytest.mark.slow
def test_a_folder_is_pressed_and_verified(home: Path) -> None:
    done = tinypress(home, "press", "bert", "--task", "data.py", "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert {c["name"] for c in receipt["candidates"]} == {"fp32", "int8", "int8.archive"}
    checked = ("verify", "runs/data-int8", "--folder", "bert", "--task", "data.py", "--json")
    assert tinypress(home, *checked).returncode == 0
    (home / "runs/data-int8/artifacts/int8/config.json").write_text("{}")
    done = tinypress(home, *checked)
    assert done.returncode == 1
    assert "config.json.sha256" in done.stdout
