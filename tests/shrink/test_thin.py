"""The masked run without its zeros returns what it returns with them."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import build

from tinypress.graph.record import record
from tinypress.graph.trace import exported
from tinypress.shrink.groups import survey
from tinypress.shrink.reference import masked_outputs, removed_labels


def as_exported(model, inputs):
    return exported("trace()", model, inputs)


def both(model, inputs, monkeypatch, traced_by=record):
    """Every second unit masked, with zeros left out and with all of them."""
    traced = traced_by(model, inputs)
    found = survey(traced, model, exact=False)
    cuts = {number: tuple(range(0, group.width, 2)) for number, group in enumerate(found.groups)}
    assert cuts
    gone = removed_labels(found, cuts)
    short = masked_outputs(traced, found, model, gone)
    monkeypatch.setattr("tinypress.shrink.reference._PLAIN_LAYERS", ())
    monkeypatch.setattr("tinypress.shrink.thin._RULES", {})
    return short, masked_outputs(traced, found, model, gone)


NAMES = ("ResNet-18", "MobileNetV2", "EfficientNet", "ShuffleNet", "DenseNet", "U-Net", "ConvNeXt", "DistilBERT", "T5",
         "CRNN")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_networks_return_the_same_without_the_zeros(name, monkeypatch):
    model, inputs = build(name)
    short, due = both(model, inputs, monkeypatch)
    for got, want in zip(short, due, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


class Between(nn.Module):
    """A convolution whose channels leave, ``what`` is done with it, and a convolution that reads it."""

    def __init__(self, what) -> None:
        super().__init__()
        self.what = what
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pairs = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(8)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.what(self, self.first(x)))


def written(m, y):
    z = y.relu_()
    return y + z


def written_with_another(m, y):
    z = y.add_(swapped(m.pairs(y)))
    return y * z


def swapped(y):
    """The halves of the channels in the other order."""
    return torch.cat(y.chunk(2, dim=1)[::-1], dim=1)


DONE = {
    "an activation": lambda m, y: nn.functional.gelu(y),
    "not zero at zero": lambda m, y: torch.sigmoid(y) + 1,
    "a norm": lambda m, y: m.norm(y),
    "a depthwise convolution": lambda m, y: m.depthwise(y),
    "groups of two": lambda m, y: m.pairs(y),
    "padding": lambda m, y: nn.functional.pad(y, (1, 2, 0, 1), value=0.5),
    "pooling": lambda m, y: nn.functional.max_pool2d(y, 2),
    "a gate": lambda m, y: y * torch.sigmoid(nn.functional.adaptive_avg_pool2d(m.depthwise(y), 1)),
    "a number for each channel": lambda m, y: y * m.norm.weight[:, None, None],
    "two values": lambda m, y: m.depthwise(y) - y,
    "other channels": lambda m, y: y + swapped(y),
    "statistics": lambda m, y: y - y.mean(dim=1, keepdim=True),
    "written": written,
    "written with another": written_with_another,
}


@pytest.mark.parametrize("traced_by", [record, as_exported])
@pytest.mark.parametrize("what", DONE.values(), ids=DONE)
def test_operations_return_the_same_without_the_zeros(what, traced_by, monkeypatch):
    torch.manual_seed(0)
    model, x = Between(what).double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    short, due = both(model, (x,), monkeypatch, traced_by)
    torch.testing.assert_close(short, due, rtol=1e-11, atol=1e-12)


class Widths(TorchDispatchMode):
    """How many channels the values of these operations have."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names, self.seen = names, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in self.names:
            self.seen.setdefault(name, set()).add(result.shape[1])
        return result


def test_no_zeros_are_computed_between_two_layers():
    def what(m, y):
        return nn.functional.max_pool2d(m.depthwise(nn.functional.pad(m.norm(y).relu(), (1, 1, 1, 1))), 2)

    model, x = Between(what).eval(), torch.randn(2, 3, 6, 6)
    traced = record(model, (x,))
    found = survey(traced, model)
    gone = removed_labels(found, {0: (1, 2, 5)})
    with Widths("convolution", "relu", "constant_pad_nd") as widths:
        masked_outputs(traced, found, model, gone)
    assert widths.seen == {
        "convolution": {4, 5}, "relu": {5}, "constant_pad_nd": {5}
    }  # fmt: skip
