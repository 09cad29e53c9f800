"""The main job on real data, as its user runs it: the demo, its receipt, verify. Its smallest file is made in every
run of the tests, all of it where there are minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tinypress import Engine, find_task, press, standard_recipes

ROOT = Path(__file__).parents[1]


def tinypress(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tinypress", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "demo"
    done = tinypress("demo", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "receipt.json").read_text())
    return out


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recipe that is chosen, by itself."""
    out = tmp_path_factory.mktemp("runs") / "smallest"
    task = find_task("watch")
    recipes = [recipe for recipe in standard_recipes(task) if recipe.name in ("fp32", "prune+int8")]
    press(task, recipes, out, engine=Engine())
    return out


@pytest.mark.slow
def test_the_receipt_holds_what_it_must(demo: Path) -> None:
    raw = json.loads((demo / "receipt.json").read_text())
    jsonschema.validate(raw, json.loads((ROOT / "docs" / "receipt.schema.json").read_text()))
    by_name = {candidate["name"]: candidate for candidate in raw["candidates"]}
    techniques = [{step["technique"] for step in candidate["recipe"]} for candidate in raw["candidates"]]
    assert {"magnitude", "recover"} in techniques
    assert {"quantize"} in techniques
    assert {"student", "distill"} in techniques
    assert {"shrink", "recover"} in techniques
    assert {"magnitude", "recover", "quantize"} in techniques
    assert {"shrink", "distill", "quantize"} in techniques
    controls = {name for name, candidate in by_name.items() if candidate["role"] == "control"}
    assert {"prune-random", "more-training", "small-dense"} <= controls
    assert "10 subjects" in raw["about"]


def ten_times_smaller(run: Path) -> list[str]:
    """Combinations that are, within three points on validation."""
    raw = json.loads((run / "receipt.json").read_text())
    baseline = raw["candidates"][0]
    assert all(candidate["drop"]["low"] <= candidate["drop"]["high"] for candidate in raw["candidates"][1:])
    return [
        candidate["name"]
        for candidate in raw["candidates"]
        if len(candidate["recipe"]) >= 3
        and candidate["role"] == "candidate"
        and baseline["artifact"]["bytes"] >= 10 * candidate["artifact"]["bytes"]
        and baseline["validation"]["value"] - candidate["validation"]["value"] <= 0.03
    ]


def verified(run: Path) -> None:
    done = tinypress("verify", str(run))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_smallest_file_is_ten_times_smaller_and_what_the_receipt_says(smallest: Path) -> None:
    assert ten_times_smaller(smallest) == ["prune+int8.archive"]
    verified(smallest)


@pytest.mark.slow
def test_a_combination_is_ten_times_smaller_within_three_points_on_validation(demo: Path) -> None:
    assert ten_times_smaller(demo)


@pytest.mark.slow
def test_verify_passes_and_the_page_is_offline(demo: Path) -> None:
    verified(demo)
    page = (demo / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
