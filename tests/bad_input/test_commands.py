"""The command line: each mistake ends with its own exit code and one message that helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinypress.cli.main import main


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of the command, its lines joined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tinypress", *arguments])
        patch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compare", "wach"], 2, ["'wach'", "'watch'"]),
        (["compare", "no_such_thing"], 2, ["'watch', 'digits'", "file.py"]),
        (["compare", "absent.py"], 2, ["absent.py", "no such file", "tinypress new"]),
        (["compare", "json:nothing"], 2, ["no 'nothing'"]),
        (["compare", "no_such_module:task"], 2, ["no_such_module"]),
        (["compare", "json:loads"], 2, ["its function failed"]),
        (["compare", "math:pi"], 2, ["a float, not a Task"]),
        (["compare", "digits", "--seed", "-1"], 2, ["--seed"]),
        (["compare", "digits", "--threads", "0"], 2, ["--threads"]),
        (["compare", "digits", "--tolerance", "-2"], 2, ["--tolerance"]),
        (["compare", "digits", "--treads", "1"], 2, ["--threads"]),
        (["comprae"], 2, ["compare"]),
        (["press", "digits", "--recipe", "absent.toml"], 2, ["absent.toml"]),
        (["verify", "absent"], 3, ["receipt.json", "finished run"]),
        (["report", "absent"], 3, ["receipt.json", "finished run"]),
        (["new", "task.txt"], 2, [".py"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Any,
    code: int,
    words: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, text = said(capsys, *arguments)
    assert found == code, text
    for word in words:
        assert word in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir()), "nothing was begun"


STEP = {"technique": "magnitude", "sparsity": 0.5}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"steps": [{"technique": "magnitud", "sparsity": 0.5}]},
            ["'magnitud'", "Did you mean 'magnitude'?"],
        ),
        (
            {"steps": [{"technique": "magnitude", "sparcity": 0.5}]},
            ["'sparcity'", "Did you mean 'sparsity'?"],
        ),
        ({"steps": [{"technique": "magnitude", "sparsity": 80}]}, ["sparsity", "80"]),
        ({"steps": [{"technique": "magnitude", "sparsity": "a half"}]}, ["sparsity", "a half"]),
        ({"steps": [{"technique": "quantize", "bits": 1}]}, ["bits", "1"]),
        ({"steps": [{"technique": "quantize", "bits": 9}]}, ["bits", "9"]),
        ({"steps": [{"technique": "quantize", "scheme": "asymmetric"}]}, ["'symmetric'"]),
        ({"steps": [{"technique": "shrink", "ratio": 1.2}]}, ["ratio", "1.2"]),
        ({"steps": [{"technique": "shrink", "ratio": 0.5, "importance": "l3"}]}, ["l3"]),
        ({"steps": [{"technique": "quantize"}, STEP]}, ["'magnitude' after 'quantize'", "last"]),
        ({"steps": [{"technique": "student", "ratio": 0.5}]}, ["never trains", "'distill'"]),
        ({"steps": [{"technique": "quantize", "group_size": 32}]}, ["group_size needs weights_only"]),
        ({"steps": [{"technique": "quantize", "method": "gptq"}]}, ["method needs weights_only"]),
        ({"steps": [{"technique": "quantize", "weights_only": 1}]}, ["weights_only"]),
        ({"steps": [{"technique": "quantize", "weights_only": True, "group_size": 0}]}, ["group_size"]),
        ({"steps": [{}]}, ["names no technique"]),
        ({"steps": [STEP], "shipp": ["onnx"]}, ["'shipp'", "'ship'"]),
        ({"steps": [STEP], "ship": ["onxx"]}, ["onxx", "'onnx'"]),
        ({"recipes": [{"name": "a", "steps": [STEP]}, {"name": "a", "steps": []}]}, ["one name"]),
        ({"recipes": [{"name": "../a", "steps": [STEP]}]}, ["name"]),
        ({"recipes": []}, ["recipes"]),
    ],
)
def test_recipes(capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: Any, words: Any) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(recipe))
    code, text = said(capsys, "press", "digits", "--recipe", str(path), "--out", str(tmp_path / "run"))
    assert code == 2, text
    for word in ("r.json", *words):
        assert word in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("r.toml", b"steps = ["),
        ("r.json", b"{"),
        ("r.json", b"\xff\xfe"),
        ("r.json", b"[" * 100_000),
        ("r.json", b"3"),
    ],
    ids=["toml", "json", "encoding", "deep", "number"],
)
def test_recipe_files_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, data: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    code, text = said(capsys, "press", "digits", "--recipe", str(path), "--out", str(tmp_path / "run"))
    assert code == 2
    assert name in text
    assert "Traceback" not in text
    assert len(text) < 900
