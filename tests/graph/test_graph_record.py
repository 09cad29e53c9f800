"""A network recorded as it runs, and what has to be left to torch.export."""

import numpy as np
import pytest
import torch
from torch import nn

from tinypress.errors import ModelError
from tinypress.graph import trace
from tinypress.graph.record import record
from tinypress.graph.traced import FreeSize
from tinypress.shrink.reference import compute, execute


class Does(nn.Module):
    """A layer, and whatever ``what`` makes of its module and its output."""

    def __init__(self, what) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(6, 8), what
        self.table = nn.Parameter(torch.randn(8))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        return self.what(self, self.layer(x))


def built(what):
    torch.manual_seed(0)
    return Does(what).double().eval()


def samples(count):
    return (torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(count)),)


def run(traced, model, inputs):
    values = execute(
        traced, model, inputs, lambda node, v: compute(node, v) if node.kind == "call" else v[node.name]
    )
    return tuple(values[name] for name in traced.outputs)


SAME = {
    "by batch": lambda m, y: y.reshape(len(y) * 2, 4).reshape(len(y), 8),
    "parts": lambda m, y: torch.cat(y.chunk(2, dim=1)[::-1], dim=1),
    "in place": lambda m, y: y.clone().add_(m.table).relu_(),
    "a view written": lambda m, y: y.index_fill(1, torch.tensor([1]), 2.0),
    "constants": lambda m, y: y * torch.tensor([1.0, 2.0] * 4, dtype=y.dtype) + torch.arange(8),
    "made where it is": lambda m, y: y + torch.arange(8, device=y.device, dtype=y.dtype),
    "expanded": lambda m, y: torch.cat([m.table.expand(len(y), 1, 8), y[:, None]], dim=1),
    "data": lambda m, y: y + m.table.data,
    "counts": lambda m, y: y + m.count.add_(1),
    "attention": lambda m, y: nn.functional.scaled_dot_product_attention(*[y.view(len(y), 2, 1, 4)] * 3),
}


@pytest.mark.parametrize("what", SAME.values(), ids=SAME)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_recorded_graph_computes_what_the_network_does_for_any_number_of_samples(what, batch):
    model = built(what)
    found = record(model, samples(batch))
    assert found is not None
    assert found.writes == (what is SAME["counts"])
    assert model.count == 0
    for count in (batch, 2, 5):
        model.count.zero_()
        (got,) = run(found, model, samples(count))
        with torch.no_grad():
            assert torch.equal(got, model(*samples(count)))


def test_sizes_that_follow_the_batch_are_told_from_those_that_do_not():
    traced = record(built(SAME["by batch"]), samples(2))  # also a view into pairs: 2 is no batch there
    views = [node for node in traced if node.label == "aten.reshape"]
    first, second = (node.args[1] for node in views)
    assert isinstance(first[0], FreeSize)
    assert (first, first[0].each) == ((4, 4), 2)
    assert not isinstance(first[1], FreeSize)
    assert views[0].batch_dims == views[1].batch_dims == (0,)
    assert second == (2, 8)


def test_of_one_sample_the_graph_is_that_of_two_and_the_example_stays():
    traced = trace(built(SAME["in place"]), samples(1))
    assert [len(traced.example[0]), len(traced.given[0])] == [2, 1]
    assert {node.shape[0] for node in traced if 0 in node.batch_dims} == {2}


def swallows(m, y):
    try:
        return y * float(y.sum())
    except Exception:
        return y


LEFT_TO_EXPORT = {
    "a value": lambda m, y: y * float(y.sum()),
    "a value, refusal caught": swallows,
    "a branch": lambda m, y: y * 2 if y.sum() > 0 else y,
    "numpy": lambda m, y: y + torch.from_numpy(np.asarray(y.detach().cpu().numpy())),
    "a list": lambda m, y: y * y.tolist()[0][0],
    "a shape of its values": lambda m, y: y[y[:, 0] > 0].sum(0, keepdim=True) + y,
    "half the batch": lambda m, y: y[: len(y) // 2],
    "half the batch, but one": lambda m, y: y[: max(len(y) // 2, 1)],
    "an eighth of the batch, but one": lambda m, y: y[: max(len(y) // 8, 1)],
    "at most so many": lambda m, y: y[: min(len(y), 32)],
    "odd or even": lambda m, y: y if len(y) % 2 else y.relu(),
    "what is left of threes": lambda m, y: y[:, : 1 + len(y) % 3],
    "every sample with every other": lambda m, y: (y @ y.T).reshape(len(y) * len(y)),
    "one sample is another case": lambda m, y: y.squeeze(0) if len(y) == 1 else y.relu(),
}


@pytest.mark.parametrize("what", LEFT_TO_EXPORT.values(), ids=LEFT_TO_EXPORT)
def test_what_two_runs_without_values_cannot_tell_is_not_recorded(what):
    model = built(what)
    for batch in (1, 2, 3, 4):
        assert what is LEFT_TO_EXPORT["one sample is another case"] or record(model, samples(batch)) is None
    assert record(model, samples(1)) is None
    assert not torch.compiler.is_compiling()
    assert torch.backends.mha.get_fastpath_enabled()
    assert not model.layer._forward_hooks


def test_what_export_refuses_is_still_an_error():
    with pytest.raises(ModelError, match="cannot trace"):
        trace(built(LEFT_TO_EXPORT["a branch"]), samples(2))


@pytest.mark.parametrize(
    "what",
    [
        lambda m, y: y * m.table.clamp_(-0.1, 0.1),
        lambda m, y: y * m.layer.weight[0, 0].mul_(2),
        lambda m, y: y * m.table.data.clamp_(-0.1, 0.1),
    ],
    ids=["a parameter", "a view of one", "its data"],
)
def test_a_parameter_that_the_forward_pass_writes_stays_as_it_is(what):
    model = built(what)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert record(model, samples(2)).writes
    trace(model, samples(2))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_several_inputs_have_equally_many_samples_or_are_left_to_export():
    class Two(nn.Module):
        def forward(self, x, y):
            return x.sum(1) + y.sum()

    assert record(Two(), (torch.ones(2, 3), torch.ones(2, 3))) is not None
    assert record(Two(), (torch.ones(2, 3), torch.ones(4, 3))) is None
    assert record(Two(), [1]) is None


def test_a_transformer_layer_of_torch_is_its_operations():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = record(layer, (torch.randn(2, 5, 8),))
    labels = [node.label for node in found]
    assert "aten.scaled_dot_product_attention" in labels
    assert labels.count("aten.layer_norm") == 2
