"""A traced graph says what the network computes, without touching it."""

import warnings

import pytest
import torch
from torch import nn

from tinypress.errors import InputError, ModelError
from tinypress.graph import arguments, batch_norm_pairs, trace


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout()
        self.head = nn.Linear(16, 3)
        self.twin = self.head

    def forward(self, x):
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        return self.twin(x.flatten(1))


def test_calls_parameters_and_output():
    traced = trace(Small(), (torch.randn(2, 1, 4, 4),))
    nodes = traced.by_name()
    calls = [node for node in traced if node.kind == "call"]
    assert [node.op for node in calls] == [
        torch.ops.aten.conv2d,
        torch.ops.aten.batch_norm,
        torch.ops.aten.relu,
        torch.ops.aten.dropout,
        torch.ops.aten.flatten,
        torch.ops.aten.linear,
    ]
    assert [node.shape for node in calls][:2] == [(2, 4, 2, 2)] * 2
    assert calls[0].module == "conv"
    assert nodes[arguments(calls[0])["weight"].node].tensor == "conv.weight"
    assert nodes[arguments(calls[-1])["weight"].node].tensor == "head.weight"
    assert arguments(calls[1])["training"] is False
    assert traced.outputs == (calls[-1].name,)
    assert [nodes[name].shape for name in traced.inputs] == [(2, 1, 4, 4)]
    assert traced.users()[calls[0].name] == (calls[1].name,)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_stays_free(batch):
    traced = trace(Small(), (torch.randn(batch, 1, 4, 4),))
    assert all(node.batch_dims == (0,) for node in traced if node.kind == "call")


def test_a_network_for_one_sample_or_with_a_fixed_batch_is_traced_as_it_is():
    class One(nn.Module):
        def forward(self, x):
            return x.reshape(1, 6) * 2

    assert trace(One(), (torch.randn(1, 2, 3),)).by_name()["x"].shape == (1, 2, 3)

    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(4, 6) * 2

    assert trace(Fixed(), (torch.randn(4, 2, 3),)).by_name()["x"].batch_dims == ()


def test_the_network_is_left_as_it_was():
    model = Small().train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    trace(model, (torch.randn(2, 1, 4, 4),))
    assert model.training
    assert model.norm.training
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_several_inputs_and_outputs_and_a_list_of_tensors():
    class Many(nn.Module):
        def forward(self, x, y):
            one, other = (x + y).chunk(2, 1)
            return {"sum": one + other, "pair": (one, y)}

    traced = trace(Many(), (torch.randn(3, 4), torch.randn(3, 4)))
    assert len(traced.inputs) == 2
    assert len(traced.outputs) == 3
    chunk = next(node for node in traced if node.op is torch.ops.aten.chunk)
    assert (chunk.shape, chunk.part_shapes) == (None, ((3, 2), (3, 2)))


def test_an_lstm_is_traced_without_noise(capfd):
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0][:, -1]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced = trace(Recurrent(), (torch.randn(1, 5, 3),))
    assert any(node.op is torch.ops.aten.lstm for node in traced)
    assert capfd.readouterr() == ("", "")


def test_control_flow_on_values_is_refused_with_the_line(capfd):
    class Branch(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(
        ModelError, match=r"test_graph_trace\.py:\d+ in forward of Branch: `if x\.sum\(\) > 0:`"
    ):
        trace(Branch(), (torch.randn(2, 3),))
    assert capfd.readouterr() == ("", "")


def test_a_wrong_example_is_refused_with_its_shape():
    with pytest.raises(ModelError, match=r"\(2, 3, 4, 4\).*RuntimeError"):
        trace(Small(), (torch.randn(2, 3, 4, 4),))
    for wrong in (torch.randn(2, 1, 4, 4), (), ([1.0],), None):
        with pytest.raises(InputError, match="not a tuple of tensors"):
            trace(Small(), wrong)


def test_nan_is_refused_with_its_source():
    model = Small()
    with torch.no_grad():
        model.norm.weight[1] = float("nan")
    with pytest.raises(ModelError, match=r"'norm\.weight' holds NaN"):
        trace(model, (torch.randn(2, 1, 4, 4),))

    class Root(nn.Module):
        def forward(self, x):
            return torch.sqrt(x)

    with pytest.raises(ModelError, match="returns NaN"):
        trace(Root(), (torch.full((2, 3), -1.0),))

    class Nothing(nn.Module):
        def forward(self, x):
            return "done"

    with pytest.raises(ModelError, match="no tensor"):
        trace(Nothing(), (torch.ones(2, 3),))


def pairs(model: nn.Module, *shape: int):
    return batch_norm_pairs(trace(model, (torch.randn(*shape),)))


def test_batch_norms_that_directly_follow_one_layer():
    assert pairs(Small(), 2, 1, 4, 4) == (("conv", "norm"),)
    chain = nn.Sequential(
        nn.Conv1d(2, 3, 1),
        nn.BatchNorm1d(3, affine=False),
        nn.Flatten(),
        nn.Linear(12, 5, bias=False),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.BatchNorm1d(5),
    )
    assert pairs(chain, 2, 2, 4) == (("0", "1"), ("3", "4"))


def test_batch_norms_that_cannot_be_folded():
    conv, norm = nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3)

    class Branch(nn.Module):
        """The convolution is read beside its batch norm too."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv, norm

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    class Returned(Branch):
        def forward(self, x):
            y = self.conv(x)
            return self.norm(y), y

    class Twice(Branch):
        """The convolution is called twice, once without its batch norm."""

        def forward(self, x):
            return self.norm(self.conv(x)) + self.conv(x * 2)

    class NormTwice(Branch):
        """One batch norm after two convolutions."""

        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Conv2d(1, 3, 1)

        def forward(self, x):
            return self.norm(self.conv(x)) + self.norm(self.other(x))

    for model in (Branch(), Returned(), Twice(), NormTwice()):
        assert pairs(model, 2, 1, 4, 4) == ()
    over_time = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(5))
    assert pairs(over_time, 2, 5, 4) == ()
    assert (
        pairs(nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), 2, 1, 4, 4)
        == ()
    )
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 3, 1)), nn.BatchNorm2d(3))
    assert pairs(normed, 2, 1, 4, 4) == ()
