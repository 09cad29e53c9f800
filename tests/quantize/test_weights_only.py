"""Whole networks with weights of few bits: which layers, what is said of the others, what each method sees."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tinypress.archive import read_archive, write_archive
from tinypress.errors import DataError, InputError, ModelError
from tinypress.facts import Compressed, QuantPlan
from tinypress.quantize import dequantize_layer_weights, quantize_weights
from tinypress.quantize.gptq import gptq_rows
from tinypress.quantize.inputs import observe, patches
from tinypress.quantize.rows import Grid
from tinypress.task import Split

METHODS = ["nearest", "mse", "hqq", "gptq", "awq"]


class Cnn(nn.Module):
    """x [B, 4, 10, 10] -> y [B, 3], with a grouped, a depthwise and a strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, groups=2)
        self.deep = nn.Conv2d(12, 12, 3, padding="same", padding_mode="reflect", groups=12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.deep(self.grouped(x)))
        return self.head(x.mean((2, 3)))


class Words(nn.Module):
    """words [B, T] -> [B, T, 40]; the head's weight is the table's, and one layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 24)
        self.places = nn.Embedding(9, 24)
        self.twice = nn.Linear(24, 24)
        self.head = nn.Linear(24, 40, bias=False)
        self.head.weight = self.table.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words) + self.places(torch.arange(words.shape[1]))
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


def cnn() -> Cnn:
    torch.manual_seed(0)
    model = Cnn().eval()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-1, 1)
        model.norm.running_var.uniform_(0.5, 2)
        model.first.weight[:, 0] = 0
    return model


def words() -> Words:
    torch.manual_seed(1)
    return Words().eval()


def images(count: int = 40) -> Split:
    generator = torch.Generator().manual_seed(2)
    return Split((torch.randn(count, 4, 10, 10, generator=generator),), torch.zeros(count))


def sentences(count: int = 30) -> Split:
    generator = torch.Generator().manual_seed(3)
    return Split((torch.randint(0, 40, (count, 9), generator=generator),), torch.zeros(count))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_the_network_holds_what_the_plan_says(method, scheme, tmp_path):
    model, samples = cnn(), images()
    before = copy.deepcopy(model.state_dict())
    done = quantize_weights(
        model, 4, group_size=16, method=method, scheme=scheme, calibration=samples, keep=("head",)
    )
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert done.plan is not None
    assert set(done.plan.weights) == {"first.weight", "grouped.weight", "deep.weight"}
    assert isinstance(done.model.norm, nn.Identity)  # folded
    for name, weight in done.plan.weights.items():
        assert torch.equal(done.model.get_parameter(name), dequantize_layer_weights(weight))
        assert (weight.bits, weight.scheme, weight.group_size) == (4, scheme, 16)
    assert bool((done.model.first.weight[:, 0] == 0).all())
    assert [note.layer for note in done.notes if note.code == "TP210"] == ["head"]
    left = {note.layer for note in done.notes if note.code == "TP211"}
    assert left == ({"grouped", "deep"} if method == "awq" else set())
    write_archive(tmp_path / "a", done)
    again = read_archive(tmp_path / "a", cnn())
    assert torch.equal(again.model(samples.inputs[0]), done.model(samples.inputs[0]))
    assert again.plan is not None
    assert torch.equal(again.plan.weights["first.weight"].packed, done.plan.weights["first.weight"].packed)


@pytest.mark.parametrize(("method", "share"), [("gptq", 0.3), ("awq", 0.9)])
@pytest.mark.parametrize("group", [None, 32])
def test_looking_at_the_inputs_helps_the_outputs(method, share, group):
    """On the mean of several networks whose inputs hang together, a few of them loud, as real ones are."""
    ratios = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        hidden, mixing = torch.randn(400, 8, generator=generator), torch.randn(8, 64, generator=generator)
        x = hidden @ mixing + 0.1 * torch.randn(400, 64, generator=generator)
        x[:, ::16] *= 10
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 9))
        seen, unseen = Split((x[:200],), torch.zeros(200)), x[200:]
        errors = {}
        with torch.no_grad():
            for name in ("nearest", method):
                done = quantize_weights(model, 3, group_size=group, method=name, calibration=seen)
                errors[name] = float((done.model(unseen) - model(unseen)).square().mean())
        ratios.append(errors[method] / errors["nearest"])
    assert sum(ratios) / len(ratios) < share


@pytest.mark.parametrize("method", METHODS)
def test_tied_weights_stay_tied_and_are_stored_once(method, tmp_path):
    model = words()
    done = quantize_weights(model, 4, method=method, calibration=sentences(), embeddings=("table",))
    assert done.plan is not None
    assert set(done.plan.weights) == {"table.weight", "head.weight", "twice.weight"}
    assert done.model.head.weight is done.model.table.weight
    assert done.plan.weights["table.weight"] is done.plan.weights["head.weight"]
    write_archive(tmp_path / "tied", done)
    # 960 + 576 weights of half a byte, 80 + 24 scales; the places stay float
    stored = 480 + 288 + 4 * (40 + 24) + 4 * 9 * 24 + 4 * 24
    assert (tmp_path / "tied").stat().st_size < stored + 1300
    again = read_archive(tmp_path / "tied", words())
    assert again.model.head.weight is again.model.table.weight
    assert torch.equal(again.model(sentences().inputs[0]), done.model(sentences().inputs[0]))
    assert [note.layer for note in done.notes if note.code == "TP210"] == ["places"]


def test_a_head_tied_to_a_table_that_is_not_named_stays_float():
    done = quantize_weights(words())
    assert done.plan is not None
    assert set(done.plan.weights) == {"twice.weight"}
    said = {note.layer: note.text for note in done.notes}
    assert "its weight is that of the embedding 'table'" in said["table"]
    assert "only where it is named" in said["places"]


def test_a_table_alone_gets_the_ranges_of_least_error_whatever_the_method():
    model = words()
    done = quantize_weights(model, 4, method="gptq", calibration=sentences(), embeddings=("places",))
    assert done.plan is not None
    plain = quantize_weights(model, 4, method="mse", embeddings=("places",))
    assert plain.plan is not None
    assert torch.equal(done.plan.weights["places.weight"].packed, plain.plan.weights["places.weight"].packed)
    assert any(note.code == "TP211" and note.layer == "places" for note in done.notes)


def test_layers_are_solved_with_what_the_quantized_layers_before_them_give():
    model, samples = cnn(), images()
    done = quantize_weights(model, 2, group_size=None, method="gptq", calibration=samples)
    float_head = copy.deepcopy(done.model)
    seen = observe(float_head, [float_head.head], samples)
    assert seen is not None
    q, scale, _ = gptq_rows("", model.head.weight.detach(), seen.hessian_JKK[0], Grid(2))
    assert torch.equal(done.model.head.weight, q.float() * scale[:, None])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (3, 4, 11)),
        (nn.Conv2d(4, 6, (3, 2), groups=2, padding=(0, 1)), (3, 4, 7, 6)),
        (nn.Conv2d(4, 4, 3, groups=4, padding="same", padding_mode="circular"), (2, 4, 5, 5)),
        (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
        (nn.Conv1d(4, 6, 3), (4, 11)),
        (nn.Linear(5, 3), (2, 7, 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_is_its_rows_times_its_patches(layer, shape):
    x = torch.randn(shape)
    x_JNK = patches(layer, x)
    rows = layer.weight.reshape(len(x_JNK), -1, layer.weight[0].numel())
    product = (x_JNK @ rows.transpose(1, 2)).permute(1, 0, 2).flatten(1) + layer.bias
    wanted = layer(x)
    if not isinstance(layer, nn.Linear):
        wanted = (wanted if len(shape) == layer.weight.dim() else wanted[None]).movedim(1, -1)
    assert torch.allclose(product, wanted.reshape(product.shape), atol=1e-5)
    if len(shape) > 2:
        seen = observe(nn.Sequential(layer), [layer], Split((x,), torch.zeros(len(x))), batch_size=1)
        assert seen is not None
        whole = x_JNK.double().transpose(1, 2) @ x_JNK.double()
        assert torch.allclose(seen.hessian_JKK, whole, rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_never_reached_is_rounded_and_said():
    class Lazybones(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    samples = Split((torch.randn(40, 8),), torch.zeros(40))
    done = quantize_weights(Lazybones(), 4, method="gptq", calibration=samples)
    assert [(n.layer, n.code) for n in done.notes] == [("idle", "TP211")]


def test_batch_norm_without_inputs_is_said():
    done = quantize_weights(cnn())
    assert isinstance(done.model.norm, nn.BatchNorm2d)
    assert "TP212" in {note.code for note in done.notes}


def test_what_came_before_is_kept():
    before = Compressed(cnn(), pruned=frozenset({"first.weight"}))
    done = quantize_weights(before, 4, example_inputs=(torch.zeros(2, 4, 10, 10),))
    assert done.pruned == before.pruned
    assert {change.layer: (change.was, change.now) for change in done.changes} == dict.fromkeys(
        ("first", "grouped", "deep", "head"), (32, 4)
    )


def test_the_same_call_gives_the_same_bits():
    for method in METHODS:
        one, two = (quantize_weights(cnn(), 3, method=method, calibration=images()) for _ in range(2))
        assert one.plan is not None
        assert two.plan is not None
        for name, weight in one.plan.weights.items():
            assert torch.equal(weight.packed, two.plan.weights[name].packed)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"bits": 1}, InputError, "bits is 1"),
        ({"bits": 9}, InputError, "bits is 9"),
        ({"group_size": 0}, InputError, "group_size is 0"),
        ({"scheme": "odd"}, InputError, "scheme is 'odd'"),
        ({"method": "magic"}, InputError, "method is 'magic'"),
        ({"method": "gptq"}, DataError, "looks at the inputs of each layer"),
        ({"embeddings": ("head",)}, InputError, "'head' is no Embedding"),
        ({"keep": ("norm",)}, InputError, "'norm' is no layer that could be quantized"),
        ({"keep": ("first", "grouped", "deep", "head")}, ModelError, "no Linear or convolution"),
    ],
)
def test_bad_settings_are_refused(settings, error, said):
    with pytest.raises(error, match=said):
        quantize_weights(cnn(), **settings)


def test_bad_networks_are_refused():
    model = cnn()
    with torch.no_grad():
        model.deep.weight[0] = float("nan")
    for method in METHODS:
        with pytest.raises((ModelError, DataError), match="NaN"):
            quantize_weights(model, method=method, calibration=images())
    with pytest.raises(InputError, match="quantized already"):
        quantize_weights(Compressed(cnn(), plan=QuantPlan()))
