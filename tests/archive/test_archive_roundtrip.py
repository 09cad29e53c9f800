"""What is read in a fresh process is bit by bit what was written: tensors, outputs, plan, pruned names."""

import os
import subprocess
import sys
from pathlib import Path

import archive_networks as networks
import pytest
import safetensors.torch
import torch
from torch import nn

from tinypress.archive import read_archive, write_archive
from tinypress.facts import Compressed, QuantPlan

_HERE = Path(__file__).parent
_IMAGE = torch.linspace(-2, 2, 5 * 3 * 12).reshape(5, 3, 12)
_WORDS = torch.arange(11).reshape(1, 11)

# name of the case: (stock network, what is kept, input)
_CASES = {
    "float": ("convolutional", lambda m: Compressed(m), _IMAGE),
    "pruned": ("convolutional", lambda m: networks.pruned(m), _IMAGE),
    "int8": ("convolutional", lambda m: networks.quantized(Compressed(m), 8), _IMAGE),
    "pruned-int8": ("convolutional", lambda m: networks.quantized(networks.pruned(m), 8), _IMAGE),
    "int4-affine": ("convolutional", lambda m: networks.quantized(Compressed(m), 4, "affine"), _IMAGE),
    "int4": ("convolutional", lambda m: networks.quantized(networks.pruned(m, 0.5), 4), _IMAGE),
    "int3-tensor": ("convolutional", lambda m: networks.quantized(Compressed(m), 3, "affine", False), _IMAGE),
    "int3": ("convolutional", lambda m: networks.quantized(Compressed(m), 3, per_channel=False), _IMAGE),
    "half": ("half", lambda m: networks.quantized(Compressed(m), 8), None),
    "shrunk": ("convolutional", lambda m: Compressed(networks.trained(networks.narrow())), _IMAGE),
    "shrunk-int8": (
        "convolutional",
        lambda m: networks.quantized(networks.pruned(networks.trained(networks.narrow())), 8),
        _IMAGE,
    ),
    "tied": ("Tied", lambda m: networks.pruned(m, 0.5), _WORDS),
    "tied-int8": ("Tied", lambda m: networks.quantized(Compressed(m), 8), _WORDS),
}

_CHILD = """
import sys, torch, safetensors.torch, archive_networks as networks
from pathlib import Path
from tinypress.archive import read_archive
torch.set_num_threads(1)
folder = Path(sys.argv[1])
inputs = safetensors.torch.load_file(folder / "inputs")
for line in sys.argv[2:]:
    case, stock = line.split("=")
    model = read_archive(folder / f"{case}.safetensors", getattr(networks, stock)()).model
    found = {"tensor." + k: v.clone() for k, v in model.state_dict().items()}
    if case in inputs:
        with torch.inference_mode():
            found["output"] = model(inputs[case])
    safetensors.torch.save_file(found, folder / f"{case}.read")
"""


def _outputs(model, given):
    with torch.inference_mode():
        return model.eval()(given)


@pytest.fixture(scope="module")
def reread(tmp_path_factory):
    """Each case as it was kept, and as a fresh process read it."""
    folder = tmp_path_factory.mktemp("archives")
    kept, inputs = {}, {}
    for case, (stock, press, given) in _CASES.items():
        kept[case] = press(networks.trained(getattr(networks, stock)()))
        write_archive(folder / f"{case}.safetensors", kept[case], name=case)
        if given is not None:
            inputs[case] = given.clone()
    safetensors.torch.save_file(inputs, folder / "inputs")
    environment = {**os.environ, "PYTHONPATH": str(_HERE)}
    arguments = [f"{case}={stock}" for case, (stock, _, _) in _CASES.items()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = {c: _outputs(kept[c].model, given) for c, given in inputs.items()}
    finally:
        torch.set_num_threads(threads)
    subprocess.run([sys.executable, "-c", _CHILD, folder, *arguments], env=environment, check=True)
    found = {case: safetensors.torch.load_file(folder / f"{case}.read") for case in _CASES}
    return folder, kept, expected, found


def _bytes_of(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("case", _CASES)
def test_tensors_and_outputs_are_bit_equal_in_a_fresh_process(reread, case):
    _, kept, expected, found = reread
    tensors = kept[case].model.state_dict()
    assert {f"tensor.{name}" for name in tensors} == found[case].keys() - {"output"}
    for name, tensor in tensors.items():
        again = found[case][f"tensor.{name}"]
        assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
        assert _bytes_of(again) == _bytes_of(tensor)
    if case in expected:
        assert _bytes_of(found[case]["output"]) == _bytes_of(expected[case])


@pytest.mark.parametrize("case", _CASES)
def test_plan_and_pruned_names_come_back(reread, case):
    folder, kept, _, _ = reread
    before = kept[case]
    after = read_archive(folder / f"{case}.safetensors", getattr(networks, _CASES[case][0])())
    assert after.pruned == before.pruned
    assert (after.plan is None) == (before.plan is None)
    assert not after.model.training
    if before.plan is None:
        return
    assert dict(after.plan.values) == dict(before.plan.values)
    assert after.plan.weights.keys() == before.plan.weights.keys()
    for name, weight in before.plan.weights.items():
        again = after.plan.weights[name]
        assert (again.shape, again.bits, again.scheme, again.axis) == (
            weight.shape,
            weight.bits,
            weight.scheme,
            weight.axis,
        )
        for field in ("packed", "scale", "zero_point"):
            assert torch.equal(getattr(again, field), getattr(weight, field))
            assert getattr(again, field).dtype == getattr(weight, field).dtype


def test_shared_tensors_are_stored_once_and_stay_shared(reread):
    folder, kept, _, _ = reread
    model = read_archive(folder / "tied.safetensors", networks.Tied()).model
    assert model.head.weight is model.embedding.weight
    assert model.again is model.middle
    assert len(list(model.parameters())) == len(list(kept["tied"].model.parameters()))
    model.embedding.weight.data[0] = 5.0
    assert bool((model.head.weight[0] == 5.0).all())


def test_a_network_whose_tie_was_cut_is_not_tied_again(tmp_path):
    model = networks.trained(networks.Tied())
    model.head.weight = nn.Parameter(model.head.weight.detach() + 1)
    write_archive(tmp_path / "cut", Compressed(model))
    again = read_archive(tmp_path / "cut", networks.Tied()).model
    assert torch.equal(again.head.weight, model.head.weight)
    assert torch.equal(again.embedding.weight, model.embedding.weight)


def test_a_tie_made_after_building_is_made_again(tmp_path):
    def stock():
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))

    model = stock()
    model[1].weight = model[0].weight
    write_archive(tmp_path / "tie", Compressed(model))
    again = read_archive(tmp_path / "tie", stock()).model
    assert again[1].weight is again[0].weight
    assert torch.equal(again[0].weight, model[0].weight)


def test_both_names_of_a_shared_quantized_weight_come_back(tmp_path):
    kept = networks.quantized(Compressed(networks.trained(networks.Tied())), 8)
    weights = dict(kept.plan.weights)
    weights["head.weight"] = weights["embedding.weight"]
    write_archive(tmp_path / "both", Compressed(kept.model, plan=QuantPlan(weights)))
    again = read_archive(tmp_path / "both", networks.Tied())
    assert again.plan.weights.keys() == weights.keys()
    del weights["embedding.weight"]
    pruned = frozenset({"head.weight"})
    write_archive(tmp_path / "second", Compressed(kept.model, pruned=pruned, plan=QuantPlan(weights)))
    again = read_archive(tmp_path / "second", networks.Tied())
    assert again.plan.weights.keys() == weights.keys()
    assert again.pruned == pruned


def test_the_stock_network_is_not_touched(tmp_path):
    stock = networks.convolutional()
    before = {name: tensor.clone() for name, tensor in stock.state_dict().items()}
    write_archive(tmp_path / "a", Compressed(networks.trained(networks.convolutional())))
    read_archive(tmp_path / "a", stock)
    assert stock.training
    assert all(torch.equal(before[name], tensor) for name, tensor in stock.state_dict().items())


def test_buffers_that_are_not_persistent_come_from_the_stock_network(tmp_path):
    class Windowed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.register_buffer("window", torch.ones(3), persistent=False)
            self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 0.0]))
            self.register_buffer("one", torch.ones(1).expand(3))

    model = Windowed()
    model.window += 1
    write_archive(tmp_path / "a", Compressed(model))
    again = read_archive(tmp_path / "a", Windowed()).model
    assert again.window.tolist() == [1, 1, 1]
    assert again.mask.tolist() == [0, float("-inf"), 0]


def test_no_pickle_is_called(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("unpickled")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, refuse)
    write_archive(tmp_path / "a", networks.quantized(networks.pruned(networks.convolutional()), 8))
    read_archive(tmp_path / "a", networks.convolutional())
