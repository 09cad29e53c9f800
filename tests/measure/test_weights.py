"""Counts, bytes and spread of weights, against sums made by hand."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Compressed, QuantizedWeight, QuantPlan
from tinypress.measure.weights import CompressionMetrics, histogram

METRICS = CompressionMetrics()


class Tied(nn.Module):
    """An embedding whose matrix is the head's too."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 11)
        self.head.weight = self.words.weight


def packed(shape, bits, scheme="symmetric", channels=1):
    return QuantizedWeight(
        torch.zeros(-(-int(np.prod(shape)) * bits // 8), dtype=torch.uint8),
        shape,
        bits,
        scheme,
        0 if channels > 1 else None,
        torch.ones(channels),
        torch.zeros(channels, dtype=torch.int32),
    )


def test_parameters_are_counted_by_layer():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Linear(8, 5))
    model[1].requires_grad_(False)
    found = METRICS.count_parameters(model)
    assert found.by_layer == {"0": 3 * 8 * 9 + 8, "1": 16, "3": 45}
    assert (found.total, found.trainable) == (224 + 16 + 45, 224 + 45)


def test_a_bare_layer_is_a_model_too():
    assert METRICS.count_parameters(nn.Linear(10, 5)).by_layer == {"": 55}
    assert METRICS.calculate_model_size(nn.Linear(10, 5)).total_bytes == 220


def test_shared_parameters_count_once():
    found = METRICS.count_parameters(Tied())
    assert found.by_layer == {"words": 44, "norm": 8, "head": 11}
    assert found.total == 63
    assert METRICS.calculate_model_size(Tied()).parameter_bytes == 4 * 63
    assert METRICS.analyze_weight_distribution(Tied()).whole.count == 44


def test_bytes_of_buffers_and_dtypes_stand_apart():
    model = Tied()
    model.words.half()  # the shared matrix: 44 values of 2 bytes
    found = METRICS.calculate_model_size(model)
    assert found.by_dtype == {"float16": 88, "float32": 4 * (8 + 11 + 8), "int64": 8}
    assert (found.parameter_bytes, found.buffer_bytes) == (88 + 4 * 19, 4 * 8 + 8)
    assert found.total_bytes == found.parameter_bytes + found.buffer_bytes == sum(found.by_dtype.values())
    assert found.by_layer == {"words": 88, "norm": 4 * 8 + 40, "head": 44}


@given(st.integers(2, 8), st.integers(1, 9), st.integers(1, 9))
def test_packed_weights_round_up_to_whole_bytes_and_biases_stay_float(bits, rows, columns):
    found = METRICS.calculate_model_size(nn.Linear(columns, rows), bits=bits)
    assert found.by_dtype == {f"int{bits}": -(-rows * columns * bits // 8), "float32": 4 * rows}


def test_four_bits_are_half_a_byte():
    layer = nn.Linear(1000, 8, bias=False)
    assert METRICS.calculate_model_size(layer, bits=4).total_bytes == 4000
    assert METRICS.calculate_model_size(layer, bits=8).total_bytes == 8000
    assert METRICS.calculate_model_size(nn.Linear(3, 1, bias=False), bits=4).total_bytes == 2
    assert METRICS.calculate_model_size(nn.Linear(3, 1, bias=False), bits=3).total_bytes == 2  # 9 bits


def test_a_plan_is_counted_as_packed_with_its_scales():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    plan = QuantPlan({"0.weight": packed((5, 6), 4, channels=5), "1.weight": packed((4, 5), 8, "affine")})
    found = METRICS.calculate_model_size(Compressed(model, plan=plan))
    assert found.by_dtype == {"int4": 15, "int8": 20, "int32": 4, "float32": 5 * 4 + 4 + 4 * 5 + 4 * 4}
    assert found.by_layer == {"0": 15 + 20 + 20, "1": 20 + 4 + 4 + 16}
    assert METRICS.calculate_model_size(Compressed(model)) == METRICS.calculate_model_size(model)
    assert METRICS.count_parameters(Compressed(model, plan=plan)).total == 59
    with pytest.raises(InputError, match="quantized already"):
        METRICS.calculate_model_size(Compressed(model, plan=plan), bits=4)
    strange = QuantPlan({"7.weight": packed((5, 6), 4)})
    with pytest.raises(ModelError, match=r"'7\.weight', which the network lacks"):
        METRICS.calculate_model_size(Compressed(model, plan=strange))


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(0, 1))
def test_the_spread_equals_numpys(seed, near_zero):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9), nn.Linear(9, 3))
    with torch.no_grad():
        model[0].weight[torch.rand(9, 7) < 0.3] = 0.0
    found = METRICS.analyze_weight_distribution(model, near_zero=near_zero)
    assert list(found.by_layer) == ["0", "2"]
    first, last = (model[i].weight.detach().numpy().ravel() for i in (0, 2))
    for one, w in ((found.by_layer["0"], first), (found.whole, np.concatenate([first, last]))):
        assert one.count == len(w)
        assert one.mean == pytest.approx(w.mean(dtype=np.float64), abs=1e-12)
        assert one.std == pytest.approx(w.astype(np.float64).std())
        assert (one.low, one.high) == (w.min(), w.max())
        assert one.quantiles == pytest.approx({q: np.quantile(w, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)})
        assert one.near_zero == np.mean(np.abs(w) <= np.float32(near_zero))
        assert one.sparsity == np.mean(w == 0) <= one.near_zero
        assert sum(one.histogram.counts) == len(w)


def test_all_matrices_of_a_layer_belong_to_it():
    lstm = nn.LSTM(3, 5)
    assert METRICS.analyze_weight_distribution(nn.Sequential(lstm)).by_layer["0"].count == 20 * 3 + 20 * 5


@settings(deadline=None)
@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60),
    st.integers(1, 50),
)
def test_the_histogram_counts_every_value_in_the_bin_that_holds_it(values, bins):
    found = histogram(torch.tensor(values), bins)
    assert len(found.counts) == bins
    assert sum(found.counts) == len(values)
    assert found.low <= min(values)
    assert found.high >= max(values)
    width = (found.high - found.low) / bins
    below = 0
    for i, count in enumerate(found.counts[:-1]):
        below += count
        edge, slack = found.low + (i + 1) * width, 1e-9 * width
        assert sum(v < edge - slack for v in values) <= below <= sum(v < edge + slack for v in values)


def test_the_histogram_of_many_values_equals_numpys():
    values = torch.randn(2_200_000, generator=torch.Generator().manual_seed(0))  # more than one block
    found = histogram(values, 40)
    expected, _ = np.histogram(values.double().numpy(), 40)
    assert found.counts == tuple(expected.tolist())


@pytest.mark.parametrize("constant", [0.0, 0.25, -3e38, 1e-42])
def test_equal_values_fall_into_one_bin_of_some_width(constant):
    found = histogram(torch.full((5, 5), constant), 40)
    assert max(found.counts) == 25
    assert found.low < found.high
    assert found.low <= constant <= found.high


def test_nothing_is_changed():
    model = Tied()
    before = copy.deepcopy(model.state_dict())
    METRICS.count_parameters(model)
    METRICS.calculate_model_size(model, bits=4)
    METRICS.analyze_weight_distribution(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(bad):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3)))
    with torch.no_grad():
        model[1][0].weight[2, 1] = bad
    with pytest.raises(ModelError, match=r"parameter '1\.0\.weight' holds NaN or infinity"):
        METRICS.analyze_weight_distribution(model)
    with pytest.raises(InputError, match="NaN or infinity"):
        histogram(model[1][0].weight)


@pytest.mark.parametrize(
    "method", ["count_parameters", "calculate_model_size", "analyze_weight_distribution"]
)
def test_networks_without_parameters_and_other_things_are_refused(method):
    with pytest.raises(ModelError, match=rf"{method}\(ReLU\): the network has no parameters"):
        getattr(METRICS, method)(nn.ReLU())
    with pytest.raises(InputError, match=rf"{method}\(dict\): that is no network"):
        getattr(METRICS, method)({"weight": torch.ones(2, 2)})


def test_settings_that_mean_nothing_are_refused():
    layer = nn.Linear(2, 2)
    for bits in (0, 1, 9, 4.0):
        with pytest.raises(InputError, match=rf"bits={bits}"):
            METRICS.calculate_model_size(layer, bits=bits)
    for near_zero in (-1.0, float("nan")):
        with pytest.raises(InputError, match="near_zero is"):
            METRICS.analyze_weight_distribution(layer, near_zero=near_zero)
    with pytest.raises(InputError, match="bins=0"):
        METRICS.analyze_weight_distribution(layer, bins=0)
    with pytest.raises(InputError, match="at least one value"):
        histogram(torch.zeros(0))
    with pytest.raises(ModelError, match="two or more dimensions"):
        METRICS.analyze_weight_distribution(nn.LayerNorm(4))
