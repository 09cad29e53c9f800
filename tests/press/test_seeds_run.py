"""Recipes repeated with several seeds: runs of their own that go on, and a summary that holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import mean, stdev

import jsonschema
import pytest

from press.small import small_task
from tinypress.errors import InputError, RunError, TaskError
from tinypress.files import write_json
from tinypress.press.compare import BASELINE
from tinypress.press.recipe import Recipe
from tinypress.press.run_folder import read_receipt
from tinypress.press.seeds import press_with_seeds, read_summary, verify_seeds
from tinypress.press.step import Distill, Recover, Shrink, Student
from tinypress.report import advice, seeds_table, write_seeds_page
from tinypress.report.schema import seeds_schema
from tinypress.summary import SeedSummary
from tinypress.task import Task

RECIPES = (
    BASELINE,
    Recipe(name="shrink", steps=(Shrink(ratio=0.5), Distill(epochs=1))),
    Recipe(name="alone", role="control", control_of="shrink", steps=(Student(ratio=0.5), Recover(epochs=1))),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    press_with_seeds(small_task(), RECIPES, out, seeds=3)
    return out


def test_the_summary_is_that_of_the_runs(run: Path) -> None:
    summary = read_summary(run)
    receipts = [read_receipt(run / f"seed-{seed}") for seed in range(3)]
    assert summary.seeds == (0, 1, 2)
    assert summary.receipts == tuple(receipt.checksum for receipt in receipts)
    assert [receipt.seed for receipt in receipts] == [0, 1, 2]
    for row in summary.rows:
        qualities = [receipt.candidate(row.name).quality.value for receipt in receipts]
        assert row.quality == tuple(qualities)
        assert row.mean == pytest.approx(mean(qualities))
        assert row.spread == pytest.approx(stdev(qualities))
        if row.drop is not None:
            drops = [receipt.candidate(row.name).drop for receipt in receipts]
            assert row.drop.values == pytest.approx([drop.value for drop in drops if drop is not None])
            assert (
                row.drop.low <= row.drop.seeds_low <= row.drop.value <= row.drop.seeds_high <= row.drop.high
            )
    assert summary.row("fp32").drop is None
    shrink, alone = (summary.row(name) for name in ("shrink", "alone"))
    assert len(set(alone.quality)) > 1
    (pair,) = summary.pairs
    assert (pair.name, pair.control) == ("shrink", "alone")
    ahead = [100 * (a - b) for a, b in zip(shrink.quality, alone.quality, strict=True)]
    assert pair.difference.values == pytest.approx(ahead)
    assert (pair.verdict == "better") == (pair.difference.low > 0)
    jsonschema.validate(json.loads((run / "seeds.json").read_text()), json.loads(seeds_schema()))


@pytest.mark.slow
def test_more_seeds_go_on_from_those_that_are_there(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    before = {seed: (copy / f"seed-{seed}/receipt.json").stat().st_mtime_ns for seed in range(3)}
    (copy / "seeds.json").unlink()
    assert press_with_seeds(small_task(), RECIPES, copy, seeds=3) == read_summary(run)
    more = press_with_seeds(small_task(), RECIPES, copy, seeds=4)
    assert more.seeds == (0, 1, 2, 3)
    assert {seed: (copy / f"seed-{seed}/receipt.json").stat().st_mtime_ns for seed in range(3)} == before
    assert more.row("shrink").quality[:3] == read_summary(run).row("shrink").quality


def test_it_can_be_verified_and_edits_are_named(run: Path, tmp_path: Path) -> None:
    assert verify_seeds(run, small_task()) == ()
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    said = read_summary(copy)
    rows = tuple(row.model_copy(update={"mean": 0.99}) if row.name == "shrink" else row for row in said.rows)
    edited = said.model_copy(update={"rows": rows})
    write_json(copy / "seeds.json", edited.model_dump(mode="json"))
    assert {m.field for m in verify_seeds(copy, small_task())} == {"checksum"}
    write_json(copy / "seeds.json", edited.sealed().model_dump(mode="json"))
    assert {m.field for m in verify_seeds(copy, small_task())} == {"rows"}
    (copy / "seed-1/artifacts/shrink.onnx").write_bytes(b"other")
    fields = {m.field for m in verify_seeds(copy, small_task())}
    assert "seed-1.candidates.shrink.artifact.sha256" in fields


@pytest.mark.slow
def test_fresh_begins_again(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    press_with_seeds(small_task(), RECIPES[:1], copy, seeds=2, fresh=True)
    assert sorted(path.name for path in copy.glob("seed-*")) == ["seed-0", "seed-1"]
    assert [row.name for row in read_summary(copy).rows] == ["fp32"]


def test_what_cannot_be_repeated_is_refused(run: Path, tmp_path: Path) -> None:
    for seeds in (0, 1, 101, True, 2.5):
        with pytest.raises(InputError, match="whole number from 2 to 100"):
            press_with_seeds(small_task(), RECIPES, tmp_path / "run", seeds=seeds)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="differs in recipes"):
        press_with_seeds(small_task(), RECIPES[:2], run, seeds=3)
    with pytest.raises(RunError, match=r"no readable seeds.json"):
        read_summary(run / "seed-0")
    other = Task(**{**vars(small_task()), "name": "other"})
    with pytest.raises(TaskError, match="run of 'small'"):
        verify_seeds(run, other)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/seeds.json").write_text('{"format": 2}')
    with pytest.raises(RunError, match="format"):
        read_summary(tmp_path / "bad")


def test_the_tables_and_the_page_say_what_the_summary_says(run: Path, tmp_path: Path) -> None:
    summary = read_summary(run)
    assert next(iter(seeds_table(summary).columns)).header == "artifact"
    assert seeds_table(summary).row_count == 3
    write_seeds_page(summary, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for row in summary.rows:
        assert f'<th scope="row">{row.name}' in page
    assert "seed-2/report.html" in page
    open_rows = [row for row in summary.rows if row.drop is not None and row.drop.verdict == "cannot tell"]
    open_pairs = [pair for pair in summary.pairs if pair.verdict == "cannot tell"]
    assert len(advice(summary)) == len(open_rows) + len(open_pairs)


def test_markup_in_a_name_is_text(run: Path, tmp_path: Path) -> None:
    summary = read_summary(run)
    rows = tuple(row.model_copy(update={"about": "<script>alert(1)</script>"}) for row in summary.rows)
    write_seeds_page(SeedSummary(**{**dict(summary), "rows": rows}), tmp_path / "page.html")
    assert "<script>" not in (tmp_path / "page.html").read_text()
