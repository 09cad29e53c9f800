"""What ships of a Hugging Face folder: network, config and tokenizer, all counted, and opened again elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

from huggingface.tiny_folder import change_config, write_folder
from tinypress.errors import ArtifactError, TaskError
from tinypress.huggingface import Pretrained, read_pretrained, read_shipped
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.step import Layers, Structured
from tinypress.press.verify import verify
from tinypress.receipt import Receipt
from tinypress.task import Companions, Split, Task

# a BERT's config says neither heads of another width nor a pooler of one
KEPT = ("network.pooler", *(f"network.encoder.layer.{i}.attention" for i in range(2)))
RECIPES = (
    BASELINE,
    Recipe(
        name="small",
        steps=(Structured(ratio=0.5, keep=KEPT), Layers(count=1)),
        ship=("onnx", "archive"),
    ),
)


class First(nn.Module):
    """The first token's embedding, as far as the network has one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedding: Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask)[0][:, 0]
        return embedding


def task_on(pretrained: Pretrained) -> Task:
    lines = ["the dog sings", "rain at night", "a teacher writes", "the cat sleeps late"] * 6
    coded = pretrained.tokenizer(lines, padding="max_length", max_length=8, return_tensors="pt")
    inputs = (coded["input_ids"], coded["attention_mask"])
    model = First(pretrained.model).eval()
    with torch.no_grad():
        data = Split(inputs, model(*inputs))
    example = tuple(x[:2] for x in inputs)
    return Task("tiny", model, example, data, data, "cosine", companions=pretrained.companions)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers.utils.logging.disable_progress_bar()
    return write_folder(tmp_path_factory.mktemp("source") / "bert")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    press(task_on(read_pretrained(folder)), RECIPES, out)
    return out


def receipt_of(run: Path) -> Receipt:
    return Receipt.model_validate_json((run / "receipt.json").read_text())


def test_all_three_ship_and_are_counted(run: Path, folder: Path) -> None:
    for candidate in receipt_of(run).candidates:
        artifact = candidate.artifact
        home = (run / artifact.path).parent
        shipped = {path.name for path in home.iterdir()}
        assert {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"} < shipped
        assert shipped == {Path(each.path).name for each in (artifact, *artifact.files)}
        assert artifact.bytes == sum(path.stat().st_size for path in home.iterdir())
        for name in ("tokenizer.json", "vocab.txt"):
            assert (home / name).read_bytes() == (folder / name).read_bytes()
    names = {candidate.name: Path(candidate.artifact.path).name for candidate in receipt_of(run).candidates}
    assert names == {"fp32": "model.onnx", "small": "model.onnx", "small.archive": "archive.safetensors"}


def test_the_config_that_ships_says_the_new_widths(run: Path) -> None:
    was, now = (json.loads((run / f"artifacts/{name}/config.json").read_text()) for name in ("fp32", "small"))
    assert (was["intermediate_size"], was["num_hidden_layers"]) == (48, 2)
    assert (now["intermediate_size"], now["num_hidden_layers"]) == (24, 1)
    assert now["architectures"] == ["BertModel"]
    assert str(run) not in json.dumps(now)
    assert not [key for key in now if key.startswith("_")]


CHILD = """
import sys
from pathlib import Path
import safetensors.torch, torch, transformers
from huggingface.test_shipped import First
from tinypress import read_shipped
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
model = read_shipped(Path(sys.argv[1]), Path(sys.argv[4]), First)
model.network.save_pretrained(sys.argv[2])
again = First(transformers.AutoModel.from_pretrained(sys.argv[2], attn_implementation="eager")).eval()
words = torch.arange(40).reshape(4, 10)
mask = torch.ones_like(words)
with torch.no_grad():
    both = {"own": model(words, mask), "theirs": again(words, mask)}
safetensors.torch.save_file({name: x.contiguous() for name, x in both.items()}, sys.argv[3])
"""


def test_a_fresh_process_opens_what_ships_and_so_does_transformers(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    config = Path(shutil.copytree(folder, tmp_path / "bert", ignore=shutil.ignore_patterns("model*")))
    shipped = run / "artifacts/small.archive"
    arguments = [str(path) for path in (shipped, tmp_path / "saved", tmp_path / "outputs", config)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": ":".join([root, *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    found = safetensors.torch.load_file(tmp_path / "outputs")
    assert torch.equal(found["own"], found["theirs"])
    words = torch.arange(40).reshape(4, 10)
    with torch.no_grad():
        here = read_shipped(shipped, folder, First)(words, torch.ones_like(words))
    torch.testing.assert_close(found["own"], here)
    said, shown = (json.loads((at / "config.json").read_text()) for at in (tmp_path / "saved", shipped))
    assert {key: said.get(key) for key in shown} == shown


def test_an_archive_of_another_network_is_refused(run: Path, folder: Path, tmp_path: Path) -> None:
    shipped = run / "artifacts/small.archive"
    copy = Path(shutil.copytree(folder, tmp_path / "bert"))
    with pytest.raises(ArtifactError, match="holds no archive"):
        read_shipped(run / "artifacts/small", folder, First)
    with pytest.raises(ArtifactError, match="Give the stock network"):
        read_shipped(shipped, folder)
    for values, text in (
        ({"vocab_size": 10**9}, "can hold"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "never run"),
        ({"num_hidden_layers": 1}, "Give the stock network"),
    ):
        shutil.copy(folder / "config.json", copy / "config.json")
        change_config(copy, **values)
        with pytest.raises(ArtifactError, match=text):
            read_shipped(shipped, copy, First)


def test_verify_checks_the_files_beside(run: Path, folder: Path, tmp_path: Path) -> None:
    task = task_on(read_pretrained(folder))
    assert verify(run, task) == ()
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "artifacts/small/vocab.txt").write_text("other\n")
    (copy / "artifacts/small.archive/tokenizer.json").unlink()
    fields = {mismatch.field for mismatch in verify(copy, task)}
    assert "candidates.small.artifact.files.artifacts/small/vocab.txt.sha256" in fields
    assert "candidates.small.artifact.bytes" in fields
    assert "candidates.small.archive.artifact.files.artifacts/small.archive/tokenizer.json.sha256" in fields


def test_a_file_beside_that_is_gone_is_written_again(run: Path, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "receipt.json").unlink()
    (copy / "artifacts/small/vocab.txt").unlink()
    press(task_on(read_pretrained(folder)), RECIPES, copy)
    again, before = receipt_of(copy), receipt_of(run)
    assert [c.artifact for c in again.candidates] == [c.artifact for c in before.candidates]
    assert (copy / "artifacts/small/vocab.txt").exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (lambda model: {"labels.txt": b""}, "gives a dict"),
        (lambda model: Companions({"../labels.txt": b""}), "cannot be the name"),
        (lambda model: Companions({"model.onnx": b""}), "cannot be the name"),
        (lambda model: Companions({"labels.txt": "text"}), "not bytes"),  # type: ignore[dict-item]
        (lambda model: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["no Companions", "outside", "the network's name", "no bytes", "fails"],
)
def test_companions_that_cannot_ship(folder: Path, tmp_path: Path, given: object, text: str) -> None:
    task = replace(task_on(read_pretrained(folder)), companions=given)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=text):
        press(task, RECIPES, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_that_cannot_say_the_widths_is_named(folder: Path) -> None:
    pretrained = read_pretrained(folder)
    model = First(pretrained.model)
    model.network.encoder.layer[0].intermediate.dense = nn.Linear(32, 40)
    notes = pretrained.companions(model).notes
    assert [(note.code, note.layer) for note in notes] == [("TP306", "network")]
