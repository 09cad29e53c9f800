"""Does a sentence encoder find a word by its definition? The data for a Hugging Face folder, such as MiniLM's:

tinypress press FOLDER --task docs/examples/minilm_data.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinypress import Split, Task
from tinypress.tasks.texts import definitions

TRAIN, VALIDATION, TEST = 800, 400, 800
DEFINITION_TOKENS, WORD_TOKENS = 32, 8


class Sentence(nn.Module):
    """Ids and mask [B, L] to the mean of the tokens' embeddings, of length 1, [B, D]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.network(input_ids=input_ids, attention_mask=attention_mask)[0]
        weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return functional.normalize((tokens * weights).sum(1) / weights.sum(1), dim=1)


def own_word_loss(embeddings: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy of finding one's own word among those of the batch."""
    near = 20 * functional.normalize(embeddings) @ words.T
    return functional.cross_entropy(near, torch.arange(len(near)))


def task(model: nn.Module, tokenizer: Any) -> Task:
    """The targets are the words' embeddings by the whole network, like an index that is already built."""
    encoder = Sentence(model).eval()

    def coded(lines: Sequence[str], most: int) -> tuple[Tensor, Tensor]:
        both = tokenizer(
            list(lines), padding="max_length", truncation=True, max_length=most, return_tensors="pt"
        )
        return both["input_ids"], both["attention_mask"]

    pairs = definitions()[: TRAIN + VALIDATION + TEST]
    words = coded([word for word, _ in pairs], WORD_TOKENS)
    with torch.no_grad():
        index = torch.cat([encoder(*part) for part in zip(*(x.split(32) for x in words), strict=True)])
    whole = Split(coded([meaning for _, meaning in pairs], DEFINITION_TOKENS), index)
    return Task(
        name="minilm-definitions",
        about="Words by their definition, from WordNet",
        model=encoder,
        example_inputs=tuple(x[:2] for x in whole.inputs),
        train=whole.take(slice(0, TRAIN)),
        validation=whole.take(slice(TRAIN, TRAIN + VALIDATION)),
        test=whole.take(slice(TRAIN + VALIDATION, None)),
        loss=own_word_loss,
        metric="retrieval_at_1",
        tolerance=3.0,
    )
