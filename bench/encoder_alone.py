"""The control of ``recipes/minilm-10mb.toml``: a network of the same size that no teacher taught.

``python -m bench.encoder_alone FILE.onnx`` trains one from random weights on pairs of a definition and its word, as
MiniLM's authors trained theirs on pairs of sentences: as many texts and steps as the taught one has, and the same bits
in the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tinypress.cli.options import watched
from tinypress.press.recipe import read_recipes
from tinypress.press.step import Qat
from tinypress.quantize import quantize_weights
from tinypress.ship import write_onnx
from tinypress.task import Split
from tinypress.tasks import minilm, minilm_taught, texts
from tinypress.train import Schedule, fit, supervised
from tinypress.train.progress import Progress

RECIPE = Path(__file__).parents[1] / "recipes" / "minilm-10mb.toml"
INNER = 1280
"""Neurons of the inner layers, which the recipe leaves."""


class Pair(nn.Module):
    """Two texts, ids and mask of each, to their embeddings side by side, [B, 2 D]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, first: Tensor, first_mask: Tensor, second: Tensor, second_mask: Tensor) -> Tensor:
        return torch.cat([self.encoder(first, first_mask), self.encoder(second, second_mask)], 1)


def contrast(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Each definition is nearer to its own word than to the others of the batch; ``targets`` are not looked at."""
    meaning, word = embeddings.chunk(2, dim=1)
    return minilm.own_word_loss(meaning, word)


def pairs(count: int, start: int) -> Split:
    """``count`` definitions with their words from place ``start`` on, none of which a task validates or tests on."""
    without = minilm_taught.held_out()
    known = [each for each in texts.definitions()[start:] if without.isdisjoint(each)][:count]
    meanings = minilm.tokens([meaning for _, meaning in known], minilm.DEFINITION_TOKENS)
    words = minilm.tokens([word for word, _ in known], minilm.WORD_TOKENS)
    return Split((*meanings, *words), torch.zeros(len(known), 1))


def train_alone(progress: Progress) -> nn.Module:
    """The encoder of the recipe's size, trained from random weights."""
    train, validation = pairs(minilm_taught.ROWS, 400), pairs(400, 0)
    torch.manual_seed(0)
    schedule = Schedule(epochs=1, learning_rate=5e-4, batch_size=64, warmup_steps=40)
    start = Pair(minilm.untrained(INNER))
    fitted = fit(start, train, validation, supervised(contrast), schedule, progress=progress, what="alone")
    encoder = fitted.model.encoder
    assert isinstance(encoder, nn.Module)
    return encoder


def bits() -> Mapping[str, int]:
    """The bits of each layer, as the recipe has them."""
    step = read_recipes(RECIPE).recipes[0].steps[-1]
    assert isinstance(step, Qat)
    return dict(step.layers)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.encoder_alone", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    start = time.perf_counter()
    with watched() as progress:
        encoder = train_alone(progress)
    layers = bits()
    tables = [name for name in layers if name.endswith("_embeddings")]
    made = quantize_weights(encoder, layers, scheme="affine", group_size=128, method="mse", embeddings=tables)
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    example = tuple(column[:2] for column in pairs(2, 0).inputs[:2])
    write_onnx(asked.file, made, example, free_length=True)
    print(
        f"{asked.file}: {asked.file.stat().st_size} bytes, {(time.perf_counter() - start) / 60:.1f} minutes"
    )


if __name__ == "__main__":
    main()
