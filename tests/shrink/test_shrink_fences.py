"""What cannot be followed is left whole, is said aloud, and the network stays right."""

import copy

import pytest
import torch
from shrink_networks import Gated, mask, settled, smallest
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.graph import trace
from tinypress.shrink import find_groups, prune_layer_neurons, shrink_model


class Flipped(Gated):
    """``flip`` along the channels has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x)).flip(1)
        return self.head(self.gate("b", torch.relu(self.b(x))))


class Literal(Gated):
    """``view`` with a width written as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate("a", torch.relu(self.a(x)))
        return self.head(torch.relu(self.b(x)).view(-1, 24))


class Recurrent(Gated):
    """Convolution, LSTM, head: channels that an LSTM reads stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 3)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.hidden, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(torch.relu(self.conv(x)).transpose(1, 2))[0][:, -1]
        return self.head(self.gate("hidden", torch.relu(self.hidden(x))))


class Channels(Gated):
    """Everything that counts channels: each of these must keep them."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 3)
        self.norm, self.layer_norm = nn.GroupNorm(2, 8), nn.LayerNorm(8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.what == "group_norm":
            x = self.norm(x)
        if self.what == "layer_norm":
            x = self.layer_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.what == "softmax":
            x = x.softmax(1)
        if self.what == "mean":
            x = x * x.mean(1, keepdim=True)
        if self.what == "slice":
            x = torch.cat([x[:, 4:], x[:, :4]], 1)
        if self.what == "chunk":
            one, other = x.chunk(2, 1)
            x = torch.cat([other, one], 1)
        if self.what == "grouped":
            x = self.grouped(x)
        if self.what == "shuffle":
            x = x.reshape(len(x), 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        if self.what == "pick":
            x = x * x[:, 2].unsqueeze(1)
        if self.what == "batch":
            x = x.flatten(0, 1).reshape(-1, 8, *x.shape[2:])
        if self.what == "constant":
            x = x + torch.arange(8.0, dtype=x.dtype).reshape(1, 8, 1, 1)
        if self.what == "select":
            x = x * x[:, 2:3]
        return self.head(self.gate("b", torch.relu(self.b(x))).mean((2, 3)))


def masked(model: Gated, x: Tensor, gates: dict[str, Tensor]) -> Tensor:
    other = copy.deepcopy(model)
    other.gates = gates
    return other(x)


def test_an_operation_without_a_rule_is_named_and_the_rest_is_cut():
    model, x = settled(Flipped(), 5, 4)
    cut = shrink_model(model, 0.5, (x,))
    note = next(n for n in cut.notes if n.layer == "a")
    assert (note.code, note.severity) == ("TP301", "warning")
    assert "aten.flip" in note.text
    assert "a (Linear)" in note.text
    assert cut.model.a.out_features == 6
    assert cut.model.b.out_features == 4
    gates = {"b": mask(8, smallest(model.b.weight, 4))}
    torch.testing.assert_close(cut.model(x), masked(model, x, gates), rtol=1e-9, atol=1e-12)
    alone = prune_layer_neurons(model, "a", 0.5, (x,))
    assert [n.code for n in alone.notes] == ["TP301"]
    assert torch.equal(alone.model(x), model(x))
    assert not alone.changes


def test_a_module_of_torch_that_keeps_widths_of_its_own_holds_what_it_reads():
    class Projected(Recurrent):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(self.lstm.input_size, 12, proj_size=self.lstm.hidden_size, batch_first=True)

    model, x = settled(Projected(), 3, 2, 9)
    cut = shrink_model(model, 0.5, (x,))
    texts = {n.layer: n.text for n in cut.notes}
    assert set(texts) == {"conv", "lstm", "head"}
    assert "lstm" in texts["conv"]
    assert "LSTM" in texts["lstm"]
    gates = {"hidden": mask(8, smallest(model.hidden.weight, 4))}
    torch.testing.assert_close(cut.model(x), masked(model, x, gates), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("group_norm", "aten.group_norm"),
        ("layer_norm", "aten.layer_norm"),
        ("softmax", "aten.softmax"),
        ("mean", "aten.mean"),
        ("slice", "its output is off by"),  # places written as numbers
        ("shuffle", "invalid for input"),
        ("pick", "aten.select"),
        ("batch", "aten.flatten"),
        ("constant", "aten.arange"),
        ("select", "aten.slice"),
    ],
)
def test_what_counts_channels_keeps_them(what, says):
    model, x = settled(Channels(what), 2, 3, 4, 4)
    cut = shrink_model(model, 0.5, (x,))
    note = next(n for n in cut.notes if n.layer == "a")
    assert says in note.text
    assert cut.model.a.out_channels == 8
    assert cut.model.b.out_channels == 4
    gates = {"b": mask(8, smallest(model.b.weight, 4))}
    torch.testing.assert_close(cut.model(x), masked(model, x, gates), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("what", ["chunk", "grouped"])
def test_halves_and_groups_lose_the_same_channels(what):
    model, x = settled(Channels(what), 2, 3, 4, 4)
    cut = shrink_model(model, 0.5, (x,))
    assert cut.model.a.out_channels == 4
    kept = [i for i in range(8) if any(torch.equal(model.a.weight[i], row) for row in cut.model.a.weight)]
    assert [i % 4 for i in kept[:2]] == [i % 4 for i in kept[2:]]
    assert cut.model.grouped.groups == 2
    if what == "grouped":
        assert (cut.model.grouped.in_channels, cut.model.grouped.out_channels) == (4, 4)


def test_a_literal_width_is_rolled_back_alone():
    model, x = settled(Literal(), 2, 1, 6, 6)
    cut = shrink_model(model, 0.5, (x,))
    note = next(n for n in cut.notes if n.code == "TP302")
    assert (note.layer, note.severity) == ("b", "warning")
    assert "RuntimeError" in note.text
    assert (cut.model.a.out_channels, cut.model.b.out_channels, cut.model.head.in_features) == (2, 6, 24)
    gates = {"a": mask(4, smallest(model.a.weight, 2))}
    torch.testing.assert_close(cut.model(x), masked(model, x, gates), rtol=1e-9, atol=1e-12)
    alone = prune_layer_neurons(model, "b", 0.5, (x,))
    assert [n.code for n in alone.notes] == ["TP302"]
    assert torch.equal(alone.model(x), model(x))


def test_attention_keeps_the_width_that_it_is_given():
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            return self.head(self.attention(x, x, x)[0].sum(1))

    cut = prune_layer_neurons(Attentive(), "before", 0.5, (torch.randn(2, 5, 3),))
    assert [n.code for n in cut.notes] == ["TP301"]
    assert "'attention' is a MultiheadAttention" in cut.notes[0].text


def test_no_layer_of_a_group_is_emptied():
    class Halves(nn.Module):
        """Two small layers side by side, added to a large one."""

        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.both = nn.Linear(3, 2), nn.Linear(3, 4), nn.Linear(3, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.left(x), self.right(x)], 1) + self.both(x))

    model, x = Halves(), torch.randn(2, 3)
    with torch.no_grad():
        model.left.weight.mul_(1e-6)
        model.both.weight[:2].mul_(1e-6)
    cut = prune_layer_neurons(model, "both", 0.5, (x,)).model
    assert (cut.left.out_features, cut.right.out_features, cut.both.out_features) == (1, 2, 3)
    assert cut(x).shape == (2, 2)


class Tied(nn.Module):
    """One linear layer called twice, and another one that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.a, self.b, self.head = (
            nn.Linear(3, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 2),
        )
        self.b.weight = self.a.weight
        self.alias = self.a

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.alias(torch.relu(self.up(x))))
        return self.head(torch.relu(self.b(x)))


def test_tied_parameters_stay_tied_and_lose_the_same_rows_and_columns():
    model = Tied().double().eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    groups, _ = find_groups(trace(model, (x,)), model)
    assert [g.producers for g in groups] == [("up", "a")]
    cut = prune_layer_neurons(model, "b", 0.5, (x,)).model
    assert cut.b.weight is cut.a.weight
    assert cut.alias is cut.a
    assert cut.a.weight.shape == (3, 3)
    assert cut(x).shape == (4, 2)
    scores = sum(n / n.mean() for n in (model.up.weight.norm(dim=1), model.a.weight.norm(dim=1)))
    kept = sorted(scores.argsort()[3:].tolist())
    assert torch.equal(cut.a.weight, model.a.weight[kept][:, kept])
    assert torch.equal(cut.b.bias, model.b.bias[kept])


class Bypass(nn.Module):
    """A block added to the network's own input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.outer(torch.relu(self.inner(x))))


def test_what_is_added_to_the_input_keeps_its_width():
    model, x = Bypass().eval(), torch.randn(3, 4)
    cut = shrink_model(model, 0.5, (x,))
    assert (cut.model.inner.out_features, cut.model.outer.out_features) == (3, 4)
    assert "input" in next(n.text for n in cut.notes if n.layer == "outer")


def test_gates_scales_and_masks_of_the_users_own_are_cut_along():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.squeeze, self.expand = nn.Conv2d(2, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8)
            self.scale = nn.Parameter(torch.rand(1, 8, 1, 1), requires_grad=False)
            self.register_buffer(
                "mask", torch.tensor([1.0, 0, 1, 1, 1, 1, 1, 1]).reshape(8, 1, 1), persistent=False
            )
            self.prelu, self.head = nn.PReLU(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.prelu(self.conv(x)) * self.scale * self.mask
            gate = torch.sigmoid(self.expand(torch.relu(self.squeeze(x.mean((2, 3))))))
            return self.head((x * gate[:, :, None, None]).sum((2, 3)))

    torch.manual_seed(0)
    model, x = Scaled().double().eval(), torch.randn(2, 2, 6, 6, dtype=torch.float64)
    cut = prune_layer_neurons(model, "conv", 0.5, (x,))
    assert cut.model.scale.shape == (1, 4, 1, 1)
    assert not cut.model.scale.requires_grad
    assert cut.model.mask.shape == (4, 1, 1)
    assert cut.model.prelu.num_parameters == 4
    scores = sum(
        n / n.mean() for n in (model.conv.weight.flatten(1).norm(dim=1), model.expand.weight.norm(dim=1))
    )
    gone = scores.argsort()[:4]
    whole = copy.deepcopy(model)
    with torch.no_grad():
        whole.mask[gone] = 0
        whole.head.weight[:, gone] = 0
    torch.testing.assert_close(cut.model(x), whole(x), rtol=1e-9, atol=1e-12)
    assert ("", "scale.shape[1]", 8, 4) in [(c.layer, c.what, c.was, c.now) for c in cut.changes]


def test_nothing_to_cut_says_why():
    with pytest.raises(ModelError, match=r"they are the network's output"):
        shrink_model(nn.Linear(4, 3), 0.5, (torch.zeros(2, 4),))
    with pytest.raises(ModelError, match="no linear layer or convolution"):
        shrink_model(nn.ReLU(), 0.5, (torch.zeros(2, 4),))
