"""A cut Hugging Face network can be saved and opened by transformers alone, where its config can say the widths."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from zoo import build

from tinypress.errors import ModelError
from tinypress.layers import LayerShape, rebuild, structure
from tinypress.shrink import factorize_model, prune_structured, remove_layers

# one whose units are all of equal width, one whose heads are no dimension of a weight, one with widths in a list
SAYABLE = ("BERT", "Llama", "ConvNeXt")


class Classifier(nn.Module):
    """Only the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.model(words).logits


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize("name", SAYABLE)
def test_from_pretrained_opens_the_cut_network(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    config = copy.deepcopy(model.model.config.to_dict())
    done = prune_structured(model, inputs, ratio=0.5)
    done.model.model.save_pretrained(tmp_path)
    opened = type(model.model).from_pretrained(tmp_path)
    assert model.model.config.to_dict() == config
    again = copy.deepcopy(done.model)
    again.model = opened.to(next(done.model.parameters()).dtype)
    with torch.no_grad():
        assert torch.allclose(again.eval()(*inputs), done.model.eval()(*inputs), rtol=1e-9, atol=1e-12)
    changed = {change.what for change in done.changes if change.what.startswith("config.")}
    assert changed
    assert not [note for note in done.notes if note.code == "TP306"]


def test_numbers_that_coincide_with_a_width_stay() -> None:
    """The vocabulary has as many words as the layer between has neurons, the positions as many as the hidden size."""
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=24, num_labels=4,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()

    done = prune_structured(Classifier(model), (torch.randint(0, 40, (2, 6)),), ratio=0.5)
    said = done.model.model.config
    assert (said.hidden_size, said.intermediate_size, said.num_attention_heads) == (12, 20, 2)
    assert (said.vocab_size, said.max_position_embeddings, said.num_labels) == (40, 24, 4)


def test_a_config_that_cannot_say_the_widths_is_left_and_named() -> None:
    """T5 scales its output by a width of the config: a smaller number would load, and compute something else."""
    model, inputs = build("T5")
    done = prune_structured(model, inputs, ratio=0.5)
    assert [note.layer for note in done.notes if note.code == "TP306"] == ["model"]
    assert done.model.model.config.to_dict() == model.model.config.to_dict()


def test_widths_that_differ_from_layer_to_layer_are_named() -> None:
    model, inputs = build("BERT")
    done = prune_structured(model, inputs, ratio=0.5, keep=["model.bert.encoder.layer.0.intermediate"])
    assert [note.layer for note in done.notes if note.code == "TP306"] == ["model"]


def test_a_plan_brings_the_config_back_and_no_other_attribute() -> None:
    model, inputs = build("BERT")
    done = prune_structured(model, inputs, ratio=0.5)
    shapes = structure(done.model)
    assert rebuild(model, shapes).model.config.hidden_size == 12
    for name in (
        "config.no_such",
        "config._name",
        "config.hidden_size.0",
        "config.a.b.c",
        "config.",
        "config",
    ):
        hostile = [
            LayerShape(s.module, s.kind, {**s.attributes, name: 3}, s.tensors) if s.module == "model" else s
            for s in shapes
        ]
        with pytest.raises(ModelError, match="keeps no whole number"):
            rebuild(model, hostile)


@pytest.mark.parametrize(("batch", "heads", "hidden"), [(4, 4, 32), (3, 8, 64)])
def test_a_number_of_heads_that_equals_another_size(
    batch: int, heads: int, hidden: int, tmp_path: Path
) -> None:
    """As many samples as heads, or heads as each is wide: no shape tells which of the two became smaller."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=hidden, num_hidden_layers=1, num_attention_heads=heads, intermediate_size=48,
        num_labels=3,
    )  # fmt: skip
    model = Classifier(transformers.BertForSequenceClassification(config))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    done = prune_structured(model, (torch.randint(0, 60, (batch, 7)),), ratio=0.5)
    assert done.model.model.config.num_attention_heads == heads // 2
    done.model.model.save_pretrained(tmp_path)
    opened = type(model.model).from_pretrained(tmp_path).eval()
    words = torch.randint(0, 60, (5, 6))
    with torch.no_grad():
        assert torch.allclose(opened(words).logits, done.model.eval()(words), atol=1e-6)


class Two(nn.Module):
    """Two encoders that were built from one config object."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24
        )
        self.one, self.other = transformers.BertModel(config), transformers.BertModel(config)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.one(words).pooler_output + self.other(words).pooler_output


def test_two_networks_of_one_config_are_told_apart() -> None:
    torch.manual_seed(0)
    model = Two()
    done = remove_layers(model, (torch.randint(0, 40, (2, 6)),), count=1, keep=["other"]).model
    assert (done.one.config.num_hidden_layers, done.other.config.num_hidden_layers) == (2, 3)
    assert all(m.config is done.one.config for m in done.one.modules() if hasattr(m, "config"))
    kept = ["other", "one.pooler", "one.embeddings", *(f"one.encoder.layer.{i}.attention" for i in range(3))]
    narrow = prune_structured(model, (torch.randint(0, 40, (2, 6)),), ratio=0.5, keep=kept).model
    assert (narrow.one.config.intermediate_size, narrow.other.config.intermediate_size) == (12, 24)


def test_pairs_of_layers_are_no_config() -> None:
    model, inputs = build("BERT")
    done = factorize_model(model, inputs, energy=0.5)
    assert [note.layer for note in done.notes if note.code == "TP306"] == ["model"]
