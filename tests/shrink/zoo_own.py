"""Convolutional and recurrent networks of known designs, small, in the project's own words."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LeNet(nn.Module):
    """[B, 1, 28, 28] -> [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
        )
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 5 * 5, 40), nn.Linear(40, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x.view(x.shape[0], -1)
        return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


def conv_norm(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3 in groups, 1x1, and the input added."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.reduce, self.spatial = conv_norm(inputs, middle, 1), conv_norm(middle, middle, 3, stride, groups)
        self.expand = conv_norm(middle, outputs, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(torch.relu(self.spatial(torch.relu(self.reduce(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNeXt(nn.Module):
    """[B, 3, 32, 32] -> [B, 10]."""

    def __init__(self, groups: int = 8) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16)
        self.body = nn.Sequential(
            Bottleneck(16, 32, 32, 1, groups),
            Bottleneck(32, 32, 32, 1, groups),
            Bottleneck(32, 64, 64, 2, groups),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))


class DenseNet(nn.Module):
    """[B, 3, 32, 32] -> [B, 10]; each layer reads all before it."""

    def __init__(self, growth: int = 8, layers: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        width = 16
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.ModuleList()
            for _ in range(layers):
                block.append(
                    nn.Sequential(
                        nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, 4 * growth, 1, bias=False),
                        nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True),
                        nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
                    )
                )  # fmt: skip
                width += growth
            self.blocks.append(block)
            self.blocks.append(
                nn.ModuleList([nn.BatchNorm2d(width), nn.Conv2d(width, width // 2, 1, bias=False)])
            )
            width //= 2
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, (norm, reduce) in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            for layer in block:
                x = torch.cat([x, layer(x.clone())], 1)
            x = nn.functional.avg_pool2d(reduce(torch.relu(norm(x))), 2)
        return self.head(nn.functional.adaptive_avg_pool2d(torch.relu(self.norm(x)), 1).flatten(1))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the other half is computed; then they are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_norm(half, half, 1),
            nn.ReLU(),
            conv_norm(half, half, 3, groups=half),
            conv_norm(half, half, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=1)
        x = torch.cat((one, self.branch(other)), 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return x.view(batch, channels, height, width)


class ShuffleNet(nn.Module):
    """[B, 3, 32, 32] -> [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 24, 3, 2), nn.ReLU())
        self.units = nn.Sequential(ShuffleUnit(24), ShuffleUnit(24))
        self.last, self.head = nn.Sequential(conv_norm(24, 48, 1), nn.ReLU()), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.units(self.stem(x))).mean([2, 3]))


class UNet(nn.Module):
    """[B, 3, 32, 32] -> [B, 2, 32, 32]; down, up by transposed convolution, skips laid beside."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self._pair(3, 8), self._pair(8, 16)
        self.middle = self._pair(16, 32)
        self.up2, self.back2 = nn.ConvTranspose2d(32, 16, 2, stride=2), self._pair(32, 16)
        self.up1, self.back1 = nn.ConvTranspose2d(16, 8, 2, stride=2), self._pair(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    @staticmethod
    def _pair(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(conv_norm(inputs, outputs), nn.ReLU(), conv_norm(outputs, outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(nn.functional.max_pool2d(one, 2))
        x = self.middle(nn.functional.max_pool2d(two, 2))
        x = self.back2(torch.cat([two, self.up2(x)], 1))
        return self.head(self.back1(torch.cat([one, self.up1(x)], 1)))


class Recurrent(nn.Module):
    """[B, T, 6] -> [B, 5] by an LSTM or GRU of two layers in both directions."""

    def __init__(self, kind: type[nn.RNNBase], *, bidirectional: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 10)
        self.memory = kind(10, 12, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(24 if bidirectional else 12, 5)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.memory(torch.relu(self.embed(x)))
        return self.head(states[:, -1])


class CRNN(nn.Module):
    """[B, 1, 16, 40] -> [B, 10, 7]: convolutions, then an LSTM along the width."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_norm(1, 8), nn.ReLU(), nn.MaxPool2d(2), conv_norm(8, 12), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.memory, self.head = nn.LSTM(12 * 4, 16, batch_first=True, bidirectional=True), nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        batch, channels, height, width = x.shape
        x = x.permute(0, 3, 1, 2).reshape(batch, width, channels * height)
        return self.head(self.memory(x)[0])


class Upscaler(nn.Module):
    """[B, 3, 8, 8] -> [B, 3, 16, 16] by a pixel shuffle, beside an interpolated skip."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 4 * 8, 3, padding=1)
        self.shuffle, self.skip, self.last = (
            nn.PixelShuffle(2),
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.shuffle(torch.relu(self.second(torch.relu(self.first(x)))))
        x = nn.functional.interpolate(self.skip(x), scale_factor=2, mode="bilinear")
        return self.last(x + y)


class FusedAttention(nn.Module):
    """[B, 9, 24] -> [B, 4]; queries, keys and values from one layer, as in many vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 6
        self.norm, self.qkv, self.proj = nn.LayerNorm(24), nn.Linear(24, 72), nn.Linear(24, 24)
        self.norm2, self.up, self.down = nn.LayerNorm(24), nn.Linear(24, 96), nn.Linear(48, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, length, 3, self.num_heads, width // 4)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(batch, length, -1))
        value, gate = self.up(self.norm2(x)).chunk(2, dim=-1)
        x = x + self.down(value * nn.functional.gelu(gate))
        return self.head(x.mean(1))
