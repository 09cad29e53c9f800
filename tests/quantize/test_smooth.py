"""SmoothQuant leaves the function as it was, and the inputs of products without their outliers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError
from tinypress.graph import norm_readers, trace
from tinypress.quantize import quantize_model
from tinypress.quantize.smooth import smooth_layers
from tinypress.task import Split

X = torch.randn(40, 6, 16, generator=torch.Generator().manual_seed(0))
SAMPLES = Split((X,), torch.zeros(40))


class Attention(nn.Module):
    """One head and a feed-forward part, each behind a norm with a few loud channels; a third norm is read by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between, self.after = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 16)
        self.up, self.down, self.last = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.before.weight[3], self.between.weight[5] = 60.0, 40.0
            self.between.bias.normal_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        scores = torch.softmax(self.query(y) @ self.key(y).transpose(1, 2) / 4, -1)
        x = x + scores @ self.value(y)
        x = x + self.down(torch.nn.functional.gelu(self.up(self.between(x))))
        x = self.after(x)
        return self.last(x) + x.mean(-1, keepdim=True)


def network() -> Attention:
    torch.manual_seed(0)
    return Attention().eval()


def test_norms_that_products_alone_read() -> None:
    found = norm_readers(trace(network(), (X[:2],)))
    assert found == (("before", ("query", "key", "value")), ("between", ("up",)))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_is_the_same_and_the_outliers_are_gone(alpha: float) -> None:
    model = network()
    was = copy.deepcopy(model.state_dict())
    done = smooth_layers(model, (X[:2],), SAMPLES, alpha)
    assert all(torch.equal(was[name], value) for name, value in model.state_dict().items())
    assert [change.layer for change in done.changes] == ["before", "between"]
    with torch.no_grad():
        torch.testing.assert_close(done.model(X), model(X), rtol=1e-3, atol=1e-3)
        inputs, weights = done.model.before(X).abs().amax((0, 1)), done.model.up.weight  # type: ignore[operator,union-attr]
        before, after = (m.before(X).abs().amax((0, 1)) for m in (model, done.model))  # type: ignore[operator,union-attr]
        joint = torch.cat([model.query.weight, model.key.weight, model.value.weight]).abs().amax(0)
    # equation 4, worked out once more
    torch.testing.assert_close(after, before / (before**alpha / joint ** (1 - alpha)), rtol=1e-3, atol=1e-4)
    if alpha == 1:
        torch.testing.assert_close(inputs, torch.ones(16))
    assert weights.shape == (32, 16)


def test_nothing_to_smooth_is_said_and_settings_are_checked() -> None:
    plain = nn.Sequential(nn.Linear(16, 4)).eval()
    done = smooth_layers(plain, (X[:2],), SAMPLES)
    assert [note.code for note in done.notes] == ["TP232"]
    for alpha in (-0.1, 1.5, True, "half"):
        with pytest.raises(InputError, match="alpha is"):
            smooth_layers(plain, (X[:2],), SAMPLES, alpha)  # type: ignore[arg-type]


def test_quantizing_smooths_first() -> None:
    model = network()
    quantized = {alpha: quantize_model(model, SAMPLES, (X[:2],), smooth=alpha) for alpha in (None, 0.8)}
    plan = quantized[0.8].plan
    assert plan is not None
    assert [change.layer for change in quantized[0.8].changes[:2]] == ["before", "between"]
    scales = {
        alpha: [value.scale for value in done.plan.values.values()] if done.plan is not None else []
        for alpha, done in quantized.items()
    }
    assert scales[0.8][0] < 0.1 * scales[None][0]  # what the first norm makes
    with pytest.raises(DataError, match="on samples only"):
        quantize_model(model, None, (X[:2],), smooth=0.5)
    with pytest.raises(InputError, match="alpha is 2"):
        quantize_model(model, SAMPLES, (X[:2],), smooth=2)
