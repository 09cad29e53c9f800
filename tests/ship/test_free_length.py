"""Files that take texts of any length: a small BERT, in float and in few bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.facts import Compressed
from tinypress.quantize import quantize_weights
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import to_onnx
from tinypress.tasks.minilm import SentenceEncoder

transformers = pytest.importorskip("transformers")


def encoder() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=2, num_hidden_layers=2, vocab_size=90,
        max_position_embeddings=40, attn_implementation="eager",
    )  # fmt: skip
    return SentenceEncoder(transformers.BertModel(config, add_pooling_layer=False)).eval()


def texts(count: int, length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    mask = (torch.arange(length) < torch.randint(1, length + 1, (count, 1), generator=generator)).long()
    return torch.randint(1, 90, (count, length), generator=generator) * mask, mask


@pytest.mark.parametrize("few_bits", [False, True], ids=["float", "few bits"])
def test_texts_of_any_length_get_the_networks_answer(few_bits: bool) -> None:
    made = Compressed(encoder())
    if few_bits:
        tables = ("bert.embeddings.word_embeddings", "bert.embeddings.position_embeddings")
        made = quantize_weights(made, 4, group_size=16, embeddings=tables)
    runner = open_onnx(to_onnx(made, texts(2, 9), free_length=True).SerializeToString())
    for length in (1, 2, 9, 31):
        columns = texts(3, length)
        with torch.no_grad():
            wanted = made.model(*columns).numpy()
        found = runner.run([x.numpy() for x in columns])
        assert np.abs(found - wanted).max() < 1e-5


class Pinned(nn.Module):
    """[B, 6] to [B, 3]: a layer that only 6 columns fit."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_length_that_cannot_be_free_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the length of .* is frozen|it cannot be exported"):
        to_onnx(Compressed(Pinned().eval()), (torch.randn(2, 6),), free_length=True)
