"""Blocks that learn to make, as integers, what the float block made."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError, ModelError
from tinypress.facts import Compressed
from tinypress.quantize import Reconstruction, dequantize_layer_weights, quantize_weights
from tinypress.quantize.block_rows import find_blocks, rows_after, rows_fed, rows_made
from tinypress.quantize.blocks import blocks_of
from tinypress.task import Split

SHORT = Reconstruction(steps=60, batch_size=16)


class Residual(nn.Module):
    """x [B, C, H, W] to the same shape; ``shift`` [1, C, 1, 1] is added, ``how['much']`` [B] is multiplied with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, *, shift: Tensor, how: dict[str, Tensor]) -> tuple[None, Tensor]:
        y = self.second(torch.relu_(self.norm(self.first(x))))
        return None, x + shift + y * how["much"].view(-1, 1, 1, 1)


class Cnn(nn.Module):
    """x [B, 3, 8, 8] to [B, 5], through two residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.blocks = nn.ModuleList([Residual(6), Residual(6)])
        self.shift = nn.Parameter(torch.randn(1, 6, 1, 1))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, shift=self.shift, how={"much": x.mean((1, 2, 3))})[1]
        y: Tensor = self.head(x.mean((2, 3)))
        return y


class Odd(nn.Module):
    """Layers that cannot be learnt as they stand: words [B, T] to [B, T, 9]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.twice = nn.Linear(8, 8)
        self.turned = nn.Linear(8, 8)
        self.idle = nn.Linear(8, 8)
        self.pair = Pair()
        self.last = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 9))
        self.tied = nn.Linear(8, 9, bias=False)
        self.tied.weight = self.table.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.twice(torch.relu(self.twice(self.table(words))))
        x = self.turned(x.transpose(0, 1)).transpose(0, 1)
        x, y = self.pair(x)
        out: Tensor = self.last(x + y) + self.tied(x)
        return out


class Pair(nn.Module):
    """x to two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.other(x)


def cnn() -> Cnn:
    torch.manual_seed(0)
    model = Cnn()
    with torch.no_grad():
        for block in model.blocks:
            assert isinstance(block, Residual)
            block.norm.running_mean.uniform_(-1, 1)
            block.norm.running_var.uniform_(0.5, 2)
            block.first.weight[:, 0] = 0
            block.second.bias[:2] = 0
    return model.eval()


def odd() -> Odd:
    torch.manual_seed(0)
    return Odd().eval()


def images(count: int = 48) -> Split:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(count, 3, 8, 8, generator=draw) + torch.randn(count, 1, 1, 1, generator=draw)
    return Split((x,), torch.arange(count) % 4)


def sentences() -> Split:
    return Split(
        (torch.randint(0, 9, (40, 7), generator=torch.Generator().manual_seed(3)),), torch.arange(40) % 4
    )


def error(model: nn.Module, other: nn.Module, samples: Split) -> float:
    with torch.no_grad():
        was = model(*samples.inputs)
        return float((other(*samples.inputs) - was).square().mean() / was.var())


@pytest.fixture(scope="module")
def learnt() -> Compressed:
    return quantize_weights(
        Compressed(cnn(), pruned=frozenset({"blocks.0.second.bias"})),
        3,
        method="blocks",
        calibration=images(),
        reconstruction=SHORT,
    )


def test_blocks_come_closer_than_layers_by_themselves(learnt: Compressed) -> None:
    model = cnn()
    nearest, least, gptq = (
        error(model, quantize_weights(model, 3, method=method, calibration=images()).model, images())
        for method in ("nearest", "mse", "gptq")
    )
    made = error(model, learnt.model, images())
    assert made < 0.3 * min(nearest, least)
    assert made < gptq
    again = {change.layer: change for change in learnt.changes if change.what == "error of its outputs"}
    assert {"blocks.0", "blocks.1", "head"} <= set(again)
    assert all(change.now < change.was for change in again.values())


def test_the_network_holds_what_its_integers_stand_for_and_zeros_stay(learnt: Compressed) -> None:
    assert learnt.plan is not None
    assert set(learnt.plan.weights) == {
        f"{name}.weight" for name, layer in cnn().named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    for name, weight in learnt.plan.weights.items():
        assert weight.bits == 3
        assert torch.equal(dequantize_layer_weights(weight), learnt.model.get_parameter(name))
    for block in ("blocks.0", "blocks.1"):
        assert not learnt.model.get_parameter(f"{block}.first.weight")[:, 0].any()
    # a bias learns, but where pruning made it zero
    assert not learnt.model.get_parameter("blocks.0.second.bias")[:2].any()
    assert learnt.model.get_parameter("blocks.0.second.bias")[2:].ne(cnn().blocks[0].second.bias[2:]).all()  # type: ignore[index, union-attr, operator]
    assert learnt.model.get_parameter("blocks.1.second.bias")[:2].ne(0).all()
    assert torch.equal(learnt.model.shift, cnn().shift)


def test_the_same_call_gives_the_same_bits_and_leaves_the_network_alone() -> None:
    model = cnn()
    was = copy.deepcopy(model.state_dict())
    told: list[tuple[int, int]] = []

    def tell(what: str, done: int, total: int) -> None:
        if what == "learning blocks":
            told.append((done, total))

    few = Reconstruction(steps=20, batch_size=8, seed=4)
    one, two = (
        quantize_weights(model, 4, method="blocks", calibration=images(), reconstruction=few, progress=tell)
        for _ in range(2)
    )
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name])
    assert all(torch.equal(value, was[name]) for name, value in model.state_dict().items())
    assert told[: len(told) // 2] == [(step, 80) for step in range(0, 81, 10)]
    assert all(parameter.requires_grad for parameter in one.model.parameters())


@pytest.mark.parametrize("path", ["stem", "blocks.0", "blocks.1", "head"])
def test_a_block_by_itself_makes_what_it_makes_in_the_network(path: str) -> None:
    model, samples = cnn(), images(40)
    blocks, reasons = find_blocks(model, blocks_of(model, layers_of(model)), samples)
    assert [block.path for block in blocks] == ["stem", "blocks.0", "blocks.1", "head"]
    assert not reasons
    block = next(each for each in blocks if each.path == path)
    rows = rows_fed("here", model, block, samples)
    made = rows_made("here", model.get_submodule(path), rows)
    chosen = torch.tensor([39, 3, 17])
    args, kwargs = rows.fed(chosen)
    with torch.no_grad():
        alone = model.get_submodule(path)(*args, **kwargs)
        everything = model(*samples.inputs)
    torch.testing.assert_close(alone[1] if isinstance(alone, tuple) else alone, made[chosen])
    if path == "head":
        torch.testing.assert_close(made, everything)
    # what it is fed is a copy, also of what all samples share
    if "shift" in kwargs:
        kwargs["shift"].zero_()
        assert rows.fed(chosen)[1]["shift"].any()


class Layered(nn.Module):
    """x [B, 4] to the same, by layers that are also fed ``mask`` [B, 4]; what happens between them is given."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Masked(), Masked(), Masked()])
        self.between = between

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.between(layer(x, mask=mask))
        return x


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = x + self.two(torch.relu(self.one(x * mask)))
        return y


@pytest.mark.parametrize(
    ("between", "follows"),
    [(lambda x: x, True), (torch.relu, False), (torch.relu_, False), (lambda x: x[:], False)],
    ids=["nothing", "a function", "in place", "a view"],
)
def test_a_block_that_follows_another_need_not_begin_at_the_input(
    between: Callable[[Tensor], Tensor], follows: bool
) -> None:
    torch.manual_seed(0)
    model = Layered(between).eval()
    samples = Split((torch.randn(40, 4), torch.randint(0, 2, (40, 4)).float()), torch.arange(40))
    (first, second, _), _ = find_blocks(model, blocks_of(model, layers_of(model)), samples)
    assert first.follows is None
    assert second.follows == ((-1, 1) if follows else None)
    if follows:
        rows = rows_fed("here", model, first, samples)
        after = rows_after(second, rows, rows_made("here", model.layers[0], rows))
        for one, other in zip(after.leaves, rows_fed("here", model, second, samples).leaves, strict=True):
            assert torch.equal(one, other)
    was = [x.clone() for x in samples.inputs]
    few = Reconstruction(steps=30, batch_size=16, bias_rate=0.01)
    found = quantize_weights(model, 2, method="blocks", calibration=samples, reconstruction=few)
    plain = quantize_weights(model, 2, method="mse", calibration=samples)
    assert error(model, found.model, samples) < 0.9 * error(model, plain.model, samples)
    assert all(torch.equal(one, other) for one, other in zip(was, samples.inputs, strict=True))


def test_a_number_that_follows_the_batch_is_refused() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = Much(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.inner(x, len(x)))
            return y

    class Much(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, count: int) -> Tensor:
            y: Tensor = self.layer(x) / count
            return y

    blocks, reasons = find_blocks(
        Counted().eval(), ["inner", "head"], Split((torch.randn(8, 4),), torch.zeros(8))
    )
    assert [block.path for block in blocks] == ["head"]
    assert "one row a sample" in reasons["inner"]


def test_a_block_makes_good_what_the_blocks_before_it_did() -> None:
    """The second layer against the float outputs, on what the first, at 2 bits, feeds it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    x = torch.randn(256, 8)
    found = quantize_weights(
        model,
        {"0": 2, "2": 8},
        method="blocks",
        calibration=Split((x,), torch.arange(256) % 4),
        reconstruction=Reconstruction(steps=200, weight_rate=0.5, bias_rate=0.01),
    )
    with torch.no_grad():
        broken = torch.relu(found.model[0](x))  # type: ignore[index, operator]
        wanted, kept, made = model(x), model[2](broken), found.model(x)
    assert (made - wanted).square().mean() < 0.8 * (kept - wanted).square().mean()


def test_what_learning_makes_no_better_is_left_as_it_was() -> None:
    model, wild = cnn(), Reconstruction(steps=3, weight_rate=40.0, scale_rate=5.0, bias_rate=9.0)
    found = quantize_weights(model, 4, method="blocks", calibration=images(), reconstruction=wild)
    plain = quantize_weights(model, 4, method="mse", calibration=images())
    for name, value in plain.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    kept = {note.layer for note in found.notes if "made it no better" in note.text}
    assert kept == {"stem", "blocks.0", "blocks.1", "head"}


def test_what_is_no_block_is_said() -> None:
    samples = sentences()
    found = quantize_weights(
        odd(), 4, method="blocks", embeddings=["table"], calibration=samples, reconstruction=SHORT
    )
    said = {note.layer: note.text for note in found.notes if note.code == "TP211"}
    assert "looked up" in said.pop("table")
    assert "called more than once" in said.pop("twice")
    assert "never reach it" in said.pop("idle")
    assert "one row a sample" in said.pop("turned")
    assert not said
    plain = quantize_weights(odd(), 4, method="mse", embeddings=["table"], calibration=samples)
    assert found.plan is not None
    assert plain.plan is not None
    assert found.plan.weights.keys() == plain.plan.weights.keys()
    same = {
        name.removesuffix(".weight")
        for name, weight in found.plan.weights.items()
        if torch.equal(weight.packed, plain.plan.weights[name].packed)
    }
    assert {"table", "twice", "idle", "turned"} <= same
    assert error(odd(), found.model, samples) < error(odd(), plain.model, samples)


def test_layers_of_a_block_that_cannot_be_run_alone_learn_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Pair(), Added(), *(nn.Linear(8, 8) for _ in range(5))).eval()
    samples = Split((torch.randn(40, 8),), torch.arange(40) % 4)
    assert "1" in blocks_of(model, layers_of(model))
    found = quantize_weights(model, 3, method="blocks", calibration=samples, reconstruction=SHORT)
    said = {note.layer: note.text for note in found.notes if note.code == "TP211"}
    assert "not one tensor" in said["1"]
    assert "one by one" in said["1"]
    learnt = {change.layer for change in found.changes if change.what == "error of its outputs"}
    assert {"1.one", "1.other"} <= learnt


class Added(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0] + pair[1]


def test_where_the_blocks_are() -> None:
    def held(model: nn.Module) -> list[str]:
        return blocks_of(model, layers_of(model))

    def wide(*parts: nn.Module) -> nn.Sequential:
        return nn.Sequential(*parts)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), wide(nn.Linear(2, 2), nn.ReLU())

    # residual blocks inside stages, whatever share of the network a stage is
    stages = wide(nn.Linear(2, 2), wide(Two(), Two()), wide(Two(), Two(), Two()), nn.Linear(2, 2))
    assert held(stages) == ["0", "1.0", "1.1", "2.0", "2.1", "2.2", "3"]
    # layers and activations in a row are a block where they are a small part of the network
    rows = wide(*(wide(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)) for _ in range(4)))
    assert held(rows) == ["0", "1", "2", "3"]
    # a network without blocks goes layer by layer; one of its layers may be all of it
    assert held(wide(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == ["0", "2"]
    assert held(nn.Linear(2, 2)) == [""]
    # two layers of a transformer are blocks although each is half of the network
    assert held(nn.ModuleDict({"layers": nn.ModuleList([Two(), Two()])})) == ["layers.0", "layers.1"]


def layers_of(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def test_a_network_that_is_one_layer_and_one_of_another_dtype() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 16, dtype=torch.float64)
    samples = Split((x,), torch.arange(64) % 4)
    found, plain = (
        quantize_weights(nn.Sequential(nn.Linear(16, 4).double()), 2, method=method, calibration=samples)
        for method in ("blocks", "mse")
    )
    assert found.model[0].weight.dtype == torch.float64  # type: ignore[index, union-attr]
    assert error_of_first(found, x) < error_of_first(plain, x)


def error_of_first(found: Compressed, x: Tensor) -> float:
    torch.manual_seed(0)
    x = torch.randn(64, 16, dtype=torch.float64)
    return error(nn.Sequential(nn.Linear(16, 4).double()), found.model, Split((x,), torch.zeros(64)))


class Root(nn.Module):
    """NaN in its second block for inputs below zero."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.first, self.second, self.power = nn.Linear(4, 4), nn.Linear(4, 4), power

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x) ** self.power)
        return y


def test_numbers_that_are_none_name_the_block() -> None:
    torch.manual_seed(0)
    samples = Split((torch.randn(40, 4),), torch.arange(40) % 4)
    with pytest.raises(DataError, match="block 'second': what it is fed became NaN"):
        quantize_weights(Root(0.5).eval(), 4, method="blocks", calibration=samples, reconstruction=SHORT)
    far = Reconstruction(steps=3, bias_rate=1e30)
    with pytest.raises(ModelError, match=r"block 'first': its error was .* and became (inf|nan)"):
        quantize_weights(Root(1.0).eval(), 4, method="blocks", calibration=samples, reconstruction=far)


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        ({"calibration": None}, DataError, "'blocks' looks at the inputs"),
        ({"power_of_two": True}, InputError, "learns the scales"),
        ({"batch_norm": images()}, InputError, "folds batch norm"),
        ({"method": "mse"}, InputError, "how 'blocks' learns"),
        ({"reconstruction": Reconstruction(steps=0)}, InputError, "steps is 0"),
        ({"reconstruction": Reconstruction(batch_size=True)}, InputError, "batch_size is True"),
        ({"reconstruction": Reconstruction(seed=-1)}, InputError, "seed is -1"),
        ({"reconstruction": Reconstruction(weight_rate=-1.0)}, InputError, "weight_rate is -1"),
        ({"reconstruction": Reconstruction(scale_rate=float("nan"))}, InputError, "scale_rate is nan"),
        ({"reconstruction": Reconstruction(bias_rate="1")}, InputError, "bias_rate is '1'"),  # type: ignore[arg-type]
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_settings_that_cannot_be(given: dict[str, Any], kind: type[Exception], match: str) -> None:
    settings: dict[str, Any] = {"method": "blocks", "calibration": images(), "reconstruction": SHORT}
    with pytest.raises(kind, match=match):
        quantize_weights(cnn(), 4, **{**settings, **given})
