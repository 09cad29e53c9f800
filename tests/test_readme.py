"""The README is executed: its Python example, its recipe, and the commands it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinypress.press.recipe import read_recipes

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]  # type: ignore[index]


def test_the_example_prints_what_its_comments_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"print\(.*\)  # (.+)", block("python"))
    assert abs(float(printed[0]) - float(promised[0])) < 1e-4
    assert printed[1 : len(promised)] == promised[1:]
    assert Path("runs/readme/receipt.json").exists()


def test_the_recipe_is_valid(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(block("toml"))
    recipe = read_recipes(tmp_path / "small.toml").recipes[0]
    assert [step.technique for step in recipe.steps] == ["shrink", "distill", "quantize"]


def test_the_demo_table_was_written() -> None:
    assert "shrink+distill+int8" in README.split("demo: begin")[1].split("demo: end")[0]
