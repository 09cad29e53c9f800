"""``watch-transformer``: the data of ``watch``, seen by a small transformer in the place of a CNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.task import Task, Training
from tinypress.tasks.trained import trained
from tinypress.tasks.watch import EXERCISES, WINDOW, splits
from tinypress.train.loop import Progress, silent

PATCH = 8


class Layer(nn.Module):
    """Attention and two linear layers, each added to what came in, with layer norm before (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 3 * width)
        self.back = nn.Linear(3 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        q, k, v = (self._by_head(layer(normed)) for layer in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(mixed))
        grown = nn.functional.gelu(self.grow(self.norm2(x)))
        added: Tensor = self.dropout(self.back(grown))
        return x + added

    def _by_head(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, heads, T, D / heads]."""
        batch, length, width = x.shape
        return x.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)


class WatchTransformer(nn.Module):
    """[B, 6, 128] motion to [B, 7] logits: patches of 8 moments, four layers of attention, their mean."""

    def __init__(self, width: int = 48, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv1d(6, width, PATCH, stride=PATCH)
        self.places = nn.Parameter(0.02 * torch.randn(1, WINDOW // PATCH, width))
        self.layers = nn.ModuleList([Layer(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(EXERCISES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).transpose(1, 2) + self.places
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


def load(seed: int = 0, progress: Progress = silent) -> Task:
    """The task with its trained network; training takes seconds and is cached."""
    train, validation, test = splits()
    training = Training(max_epochs=40, patience=10, recovery_epochs=6, batch_size=64)

    def build() -> nn.Module:
        return WatchTransformer()

    loss = nn.functional.cross_entropy
    model = trained("watch-transformer", build, train, validation, loss, training, seed, progress)
    return Task(
        name="watch-transformer",
        about="Seven shoulder exercises from smartwatch motion, split by subject, by a small transformer",
        model=model,
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=validation,
        test=test,
        loss=loss,
        metric="accuracy",
        build=build,
        tolerance=3.0,
        training=training,
        classes=EXERCISES,
    )
