"""Every planted mistake is noticed: the tests named beside it pass on the package and fail on a copy with it."""

from __future__ import annotations

import compileall
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest
from planted import PLANTED, Planted

import tinypress

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, compiled so that only what is changed is compiled again."""
    folder = tmp_path_factory.mktemp("copied")
    package = folder / "tinypress"
    shutil.copytree(Path(tinypress.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    # by content: an edit of equal length within a second would pass for the old file
    assert compileall.compile_dir(package, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments in a fresh process, which finds the package in ``folder`` first."""
    own = {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=TESTS.parent,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
    )


def pytest_run(folder: Path, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    options = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")
    return run(folder, *options, *(str(TESTS / test) for test in tests))


def test_the_copy_is_what_is_imported(copied: Path) -> None:
    found = run(copied, "-c", "import tinypress; print(tinypress.__file__)")
    assert Path(found.stdout.strip()) == copied / "tinypress" / "__init__.py", found.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_without_a_mistake_all_of_them_pass(copied: Path) -> None:
    found = pytest_run(copied, dict.fromkeys(planted.test for planted in PLANTED))
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr


def test_names_tell_mistakes_apart() -> None:
    assert len({planted.name for planted in PLANTED}) == len(PLANTED) >= 34


def sample(seed: int) -> set[str]:
    """One mistake in each of seven folders of the package: `make test-all` tries the rest."""
    drawn = list(PLANTED)
    random.Random(seed).shuffle(drawn)
    by_folder: dict[str, list[str]] = {}
    for planted in drawn:
        by_folder.setdefault(planted.file.partition("/")[0], []).append(planted.name)
    return {names[0] for names in list(by_folder.values())[:7]}


SAMPLE = sample(seed=7)


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(each, marks=() if each.name in SAMPLE else pytest.mark.slow, id=each.name)
        for each in PLANTED
    ],
)
def test_it_is_noticed(copied: Path, planted: Planted) -> None:
    file = copied / "tinypress" / planted.file
    text = file.read_text()
    assert text.count(planted.old) == 1, (
        f"{planted.old!r} stands {text.count(planted.old)} times in {planted.file}"
    )
    file.write_text(text.replace(planted.old, planted.new))
    try:
        found = pytest_run(copied, [planted.test])
    finally:
        file.write_text(text)
    # 1 is "tests failed"; a copy that cannot even be imported, or no test of that name, is another code
    assert found.returncode == 1, found.stdout[-3000:] + found.stderr
    assert re.search(r"\b1 failed\b", found.stdout) or "FAILED" in found.stdout, found.stdout[-3000:]
