"""Networks that cannot be kept, and stock networks that do not fit: refused by name, and nothing is written."""

from dataclasses import replace

import archive_networks as networks
import pytest
import torch
from torch import nn

from tinypress.archive import read_archive, write_archive
from tinypress.errors import ArtifactError, InputError, ModelError
from tinypress.facts import Compressed, QuantizedValue, QuantPlan


def _bad_networks():
    def with_parameter(value):
        model = networks.convolutional()
        model[4].weight.data[0, 0] = value
        return Compressed(model)

    nan_buffer = networks.convolutional()
    nan_buffer[1].running_var[2] = float("nan")
    edited = networks.quantized(Compressed(networks.convolutional()), 8)
    edited.model[4].weight.data[0, 0] += 1
    stale = networks.quantized(Compressed(networks.convolutional()), 8)
    weight = stale.plan.weights["4.weight"]
    missing = QuantPlan({**stale.plan.weights, "9.weight": weight})
    scale = weight.scale.clone()
    scale[1] = 0.0

    def changed(**fields):
        return Compressed(stale.model, plan=QuantPlan({"4.weight": replace(weight, **fields)}))

    class Hidden(nn.Linear):
        def get_extra_state(self):
            return {"secret": 1}

    return {
        "NaN weight": (with_parameter(float("nan")), "'4.weight': it holds NaN"),
        "infinite weight": (with_parameter(float("inf")), "'4.weight': it holds infinity"),
        "NaN in a buffer": (Compressed(nan_buffer), "'1.running_var': it holds NaN"),
        "complex": (Compressed(nn.Linear(2, 2, dtype=torch.complex64)), "complex64"),
        "edited after": (edited, "'4.weight': its values are not those of its integers"),
        "plan of another": (Compressed(stale.model, plan=missing), "'9.weight': the plan quantizes it"),
        "pruned of another": (Compressed(stale.model, pruned=frozenset({"x.y"})), "'x.y': it is among the"),
        "scale 0": (changed(scale=scale), "'4.weight': its scale is not finite and above 0"),
        "9 bits": (changed(bits=9), "'4.weight': its integers have 9 bits"),
        "zero point": (changed(zero_point=weight.zero_point + 1), "'4.weight': its zero_point is outside"),
        "axis": (changed(axis=2), "'4.weight': its axis is 2"),
        "shape": (changed(shape=(80, 16)), "'4.weight': its integers have shape"),
        "scales": (changed(axis=1), "'4.weight': it has 16 scales where 80 are needed"),
        "half scale": (changed(scale=weight.scale.half()), "'4.weight': its scale is torch.float16"),
        "packed": (changed(packed=weight.packed[:-1]), "'4.weight': "),
        "lowest": (
            changed(packed=torch.full_like(weight.packed, 0x80)),
            "'4.weight': it holds the integer -128",
        ),
        "extra state": (Compressed(Hidden(2, 2)), "extra state"),
        "activation scale": (
            Compressed(stale.model, plan=QuantPlan({}, {"x": QuantizedValue(float("inf"), 0)})),
            "scale: ",
        ),
    }


@pytest.mark.parametrize("case", _bad_networks())
def test_a_network_that_cannot_be_kept_is_refused_and_leaves_no_file(tmp_path, case):
    compressed, said = _bad_networks()[case]
    with pytest.raises(ModelError) as caught:
        write_archive(tmp_path / "a", compressed)
    assert said in str(caught.value)
    assert "write_archive('a'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_ties_with_different_integers_are_refused(tmp_path):
    kept = networks.quantized(Compressed(networks.trained(networks.Tied())), 8)
    weights = dict(kept.plan.weights)
    weight = weights["embedding.weight"]
    weights["head.weight"] = replace(weight, scale=weight.scale * 2)
    with pytest.raises(ModelError, match=r"'head.weight': it is one tensor with embedding.weight"):
        write_archive(tmp_path / "a", Compressed(kept.model, plan=QuantPlan(weights)))


def test_another_stock_network_is_refused_by_name(tmp_path):
    write_archive(tmp_path / "a", Compressed(networks.convolutional()))

    others = {
        "more than 320": nn.Sequential(nn.Conv1d(3, 8, 3)),
        "no module": nn.Sequential(*_layers()[:-1]),
        "'1'": nn.Sequential(*[nn.Linear(3, 3) if i == 1 else layer for i, layer in enumerate(_layers())]),
        "'7'": nn.Sequential(*_layers(), nn.Linear(4, 4)),
        "dtype is torch.float32": networks.convolutional().half(),
    }
    for said, stock in others.items():
        with pytest.raises(ArtifactError) as caught:
            read_archive(tmp_path / "a", stock)
        assert said in str(caught.value)
        assert "stock network" in caught.value.remedy
        assert "read_archive('a', Sequential)" in str(caught.value)


def _layers():
    return list(networks.convolutional())


def test_a_stock_that_is_no_network_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a torch"):
        read_archive(tmp_path / "a", nn.Linear)
