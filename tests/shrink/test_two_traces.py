"""What is recorded as a network runs leads to the same groups, notes and outputs as what torch.export writes."""

import pytest
import test_nasty
import torch
from torch import nn
from zoo import ZOO, build

from tinypress.errors import ModelError
from tinypress.graph.record import record
from tinypress.graph.trace import exported
from tinypress.measure.compute import count_macs
from tinypress.shrink.cutting import Cut, thinner_tensors
from tinypress.shrink.groups import note, survey
from tinypress.shrink.reference import masked_outputs, removed_labels

# Exports are slow: these touch views by batch, splits, recurrence and concatenation; the rest is in `make test-all`.
QUICK = ("LeNet", "ShuffleNet", "U-Net", "ViT, fused qkv", "BERT", "LSTM")


def equal(model, inputs):
    mine, theirs = record(model, inputs), exported("trace()", model, inputs)
    assert count_macs(mine) == count_macs(theirs)
    for exact in (True, False):
        for units in ("heads", "head width"):
            one, other = (survey(each, model, exact=exact, units=units) for each in (mine, theirs))
            assert one.groups == other.groups
            notes = [[note(layer, fence, model) for layer, fence in s.left.items()] for s in (one, other)]
            assert notes[0] == notes[1]
    cuts = {number: tuple(range(group.width // 2)) for number, group in enumerate(one.groups)}
    outputs = [
        masked_outputs(traced, found, model, removed_labels(found, cuts), inputs)
        for traced, found in ((mine, one), (theirs, other))
    ]
    for got, due in zip(*outputs, strict=True):
        torch.testing.assert_close(got, due, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]
)
def test_both_traces_of_an_architecture_are_equal_in_what_they_lead_to(name):
    equal(*build(name))


BETWEEN = ("literal", "sorted_units", "spectrum", "softmaxed", "picked", "turned", "counted", "summed_up", "outer",
           "padded", "most", "in_place", "same_tensor_twice", "checked")  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_both_traces_of_a_nasty_module_are_equal_in_what_they_lead_to(name):
    equal(test_nasty.nasty(getattr(test_nasty, name)), test_nasty.example())


@pytest.mark.parametrize("name", ["depends_on_values", "of_some_length"])
def test_nasty_modules_that_go_by_values_are_refused_by_both(name):
    model = test_nasty.nasty(getattr(test_nasty, name))
    assert record(model, test_nasty.example()) is None
    with pytest.raises(ModelError):
        exported("trace()", model, test_nasty.example())


@pytest.mark.parametrize("name", ["LeNet", "ViT, fused qkv", "ResNeXt"])
def test_products_with_zeros_are_left_out_of_the_masked_run(name, monkeypatch):
    model, inputs = build(name)
    traced = record(model, inputs)
    found = survey(traced, model, exact=False)
    cuts = {number: tuple(range(0, group.width, 2)) for number, group in enumerate(found.groups)}
    gone = removed_labels(found, cuts)
    same, others = (
        thinner_tensors(model, [Cut(found.groups[number], units) for number, units in each.items()])
        for each in (cuts, {number: tuple(unit + 1 for unit in units) for number, units in cuts.items()})
    )
    short = [masked_outputs(traced, found, model, gone, thinner=parts) for parts in (None, same, others)]
    for parts in same.values():  # what was taken out is what is read
        parts.tensor.data.zero_()
    assert any(
        not torch.equal(got, due)
        for got, due in zip(masked_outputs(traced, found, model, gone, thinner=same), short[0], strict=True)
    )
    monkeypatch.setattr("tinypress.shrink.reference._PLAIN_LAYERS", ())
    monkeypatch.setattr("tinypress.shrink.thin._RULES", {})
    for found_outputs in short:
        for got, due in zip(found_outputs, masked_outputs(traced, found, model, gone), strict=True):
            torch.testing.assert_close(got, due, rtol=1e-11, atol=1e-12)


class Shares(nn.Module):
    """A view is masked because of what it meets; what it is a view of is read whole."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.table = nn.Parameter(torch.ones(1, 8))

    def forward(self, x):
        return self.head(torch.sigmoid(self.a(x)) + self.table.expand(len(x), 8)), self.table.sum()


def test_what_is_masked_is_no_memory_that_others_read():
    torch.manual_seed(0)
    model = Shares().double().eval()
    inputs = test_nasty.example()
    traced = record(model, inputs)
    found = survey(traced, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cuts = dict.fromkeys(range(len(found.groups)), (0, 1))
    assert cuts
    masked_outputs(traced, found, model, removed_labels(found, cuts))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
