"""A Hugging Face folder is read as it is, or refused with the reason before anything in it is used."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from huggingface.tiny_folder import change_config, write_folder
from tinypress.errors import ArtifactError, MissingExtra, ModelError
from tinypress.huggingface import read_pretrained


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers.utils.logging.disable_progress_bar()
    return write_folder(tmp_path_factory.mktemp("folder") / "bert")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bert"))


def outputs(model: torch.nn.Module, words: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = model(words)[0]
        return answer


def test_it_is_what_transformers_reads(whole: Path) -> None:
    state = torch.get_rng_state()
    found = read_pretrained(whole)
    assert torch.equal(torch.get_rng_state(), state)
    due = transformers.BertModel.from_pretrained(whole, attn_implementation="eager").eval()
    words = torch.randint(0, 60, (3, 7), generator=torch.Generator().manual_seed(0))
    assert type(found.model) is transformers.BertModel
    assert torch.equal(outputs(found.model, words), outputs(due, words))
    coded = found.tokenizer(["the dog sings", "rain"], padding="max_length", max_length=6)
    assert coded["attention_mask"] == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]
    assert found.notes == ()


def test_shards_with_an_index_are_one_network(whole: Path, tmp_path: Path) -> None:
    cut = write_folder(tmp_path / "cut", shard_bytes=30_000)
    assert len(list(cut.glob("model-*.safetensors"))) > 1
    words = torch.arange(12).reshape(2, 6)
    one, many = read_pretrained(whole).model, read_pretrained(cut).model
    assert torch.equal(outputs(one, words), outputs(many, words))
    next(cut.glob("model-*.safetensors")).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_pretrained(cut)


def test_a_head_that_the_config_names_is_read(folder: Path) -> None:
    shutil.rmtree(folder / "none", ignore_errors=True)
    config = transformers.BertConfig.from_pretrained(folder, num_labels=3)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    assert type(read_pretrained(folder).model) is transformers.BertForSequenceClassification
    change_config(folder, architectures=["BertModel"])
    found = read_pretrained(folder)
    assert type(found.model) is transformers.BertModel
    assert [(note.code, "classifier" in note.text) for note in found.notes] == [("TP309", True)]


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")


def _truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)


def _code_in_tokenizer(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.Y", None]}}))


def _code_inside(folder: Path) -> None:
    change_config(folder, text_config={"auto_map": {"AutoModel": "evil.Model"}})


def _outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"embeddings.word_embeddings.weight": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _no_tokenizer_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece"')


REFUSED: tuple[tuple[str, Callable[[Path], object], type[Exception], str], ...] = (
    ("pickle", _pickled, ArtifactError, "pytorch_model.bin alone.*save_pretrained"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), ArtifactError, "holds no model.safetensors"),
    ("truncated", _truncated, ArtifactError, "its header tells of"),
    ("no config", lambda f: (f / "config.json").unlink(), ArtifactError, "holds no config.json"),
    ("config is a list", lambda f: (f / "config.json").write_text("[]"), ArtifactError, "not a JSON object"),
    ("code", lambda f: change_config(f, auto_map={"AutoModel": "evil.Model"}), ArtifactError, "never run"),
    ("code inside", _code_inside, ArtifactError, "auto_map.*never run"),
    ("code in the tokenizer", _code_in_tokenizer, ArtifactError, "tokenizer_config.json has 'auto_map'"),
    ("no tokenizer", _without_tokenizer, ArtifactError, "holds no tokenizer"),
    ("damaged tokenizer", _no_tokenizer_json, ArtifactError, "tokenizer"),
    ("no model type", lambda f: change_config(f, model_type=None), ArtifactError, "names no model_type"),
    ("unknown model type", lambda f: change_config(f, model_type="berd"), ModelError, "model_type 'berd'"),
    ("another class", lambda f: change_config(f, architectures=["GPT2Model"]), ModelError, "not built from"),
    ("other widths", lambda f: change_config(f, hidden_size=64), ArtifactError, "another shape"),
    ("more layers", lambda f: change_config(f, num_hidden_layers=3), ArtifactError, "encoder.layer.2"),
    ("endless layers", lambda f: change_config(f, num_hidden_layers=10**9), ArtifactError, "num_hidden_lay"),
    ("huge", lambda f: change_config(f, vocab_size=10**10), ArtifactError, "the folder holds"),
    (
        "impossible",
        lambda f: change_config(f, num_attention_heads=5),
        ArtifactError,
        "describes no BertModel",
    ),
    ("outside", _outside, ArtifactError, "not a .safetensors file beside it"),
)


@pytest.mark.parametrize(
    ("damage", "error", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_cannot_be_used_is_refused(
    folder: Path, damage: Callable[[Path], object], error: type[Exception], text: str
) -> None:
    damage(folder)
    with pytest.raises(error, match=f"(?s){text}") as caught:
        read_pretrained(folder)
    assert "read_pretrained('bert')" in str(caught.value)


def test_no_folder_and_no_library(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        read_pretrained(tmp_path / "none")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tinypress\[pretrained\]'"):
        read_pretrained(whole)
