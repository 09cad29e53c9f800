"""Small networks, pruned and quantized by hand, so that these tests lean on nothing above the archive."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.bits import pack
from tinypress.facts import Compressed, QuantizedValue, QuantizedWeight, QuantPlan

Scheme = Literal["symmetric", "affine"]


def convolutional() -> nn.Module:
    """[B, 3, 12] -> [B, 4]; a stock network."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(3, 8, 3),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(80, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )


def narrow() -> nn.Module:
    """``convolutional`` with fewer channels and neurons, and without its batch norm."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv1d(3, 5, 3),
        nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(50, 7),
        nn.ReLU(),
        nn.Linear(7, 4),
    )


class Tied(nn.Module):
    """[B, T] words -> [B, T, 11]; the head uses the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embedding = nn.Embedding(11, 6)
        self.middle = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.again = self.middle

    def forward(self, words: Tensor) -> Tensor:
        out: Tensor = self.head(self.again(torch.tanh(self.middle(self.embedding(words)))))
        return out


def trained(model: nn.Module) -> nn.Module:
    """Other weights and statistics than a stock network starts with."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape))
        for buffer in model.buffers():
            buffer.copy_(torch.rand(buffer.shape) + 0.5 if buffer.is_floating_point() else buffer + 7)
    return model.eval()


def pruned(model: nn.Module, sparsity: float = 0.9) -> Compressed:
    """The smallest weights of every matrix and kernel set to +0."""
    names = set()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            smallest = parameter.detach().abs().reshape(-1).argsort()[: int(sparsity * parameter.numel())]
            parameter.data.view(-1)[smallest] = 0.0
            names.add(name)
    return Compressed(model, pruned=frozenset(names))


def quantized(
    before: Compressed, bits: int, scheme: Scheme = "symmetric", per_channel: bool = True
) -> Compressed:
    """Every matrix and kernel as integers, with two activations in the plan."""
    weights = {}
    for name, parameter in before.model.named_parameters():
        if parameter.dim() > 1:
            weights[name], real = _integers(parameter.detach().float(), bits, scheme, per_channel)
            parameter.data = real.to(parameter.dtype)
    values = {"input": QuantizedValue(1 / 3, 7), "relu_1": QuantizedValue(0.1, 0)}
    return Compressed(before.model, pruned=before.pruned, plan=QuantPlan(weights, values))


def _integers(weight: Tensor, bits: int, scheme: Scheme, per_channel: bool) -> tuple[QuantizedWeight, Tensor]:
    rows = weight.reshape(len(weight) if per_channel else 1, -1)
    if scheme == "symmetric":
        highest = 2 ** (bits - 1) - 1
        scale = (rows.abs().amax(1, keepdim=True) / highest).clamp_min(1e-8)
        zero_point = torch.zeros(len(rows), 1)
        q = (rows / scale).round().clamp(-highest, highest)
    else:
        highest = 2**bits - 1
        low, high = rows.amin(1, keepdim=True).clamp_max(0), rows.amax(1, keepdim=True).clamp_min(0)
        scale = ((high - low) / highest).clamp_min(1e-8)
        zero_point = (-low / scale).round().clamp(0, highest)
        q = ((rows / scale).round() + zero_point).clamp(0, highest)
    real = ((q - zero_point) * scale).reshape(weight.shape)
    packed = pack(q.to(torch.int8 if scheme == "symmetric" else torch.uint8), bits)
    return (
        QuantizedWeight(
            packed,
            tuple(weight.shape),
            bits,
            scheme,
            0 if per_channel else None,
            scale.reshape(-1),
            zero_point.reshape(-1).to(torch.int32),
        ),
        real + 0.0,
    )


def half() -> nn.Module:
    """``convolutional`` in float16, whose int8 weights are rounded once more when they are dequantized."""
    return convolutional().half()
