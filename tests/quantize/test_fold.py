"""A folded network computes what the layer and its batch norm computed, in one layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tinypress.errors import ModelError
from tinypress.quantize.fold import fold_batch_norms


def settled(norm: nn.Module) -> nn.Module:
    """Statistics and parameters as a training leaves them: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.detach().copy_(noise + (0.2 if "var" in name else -1.5))
    return norm


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Linear(5, 6), nn.BatchNorm1d(6), (4, 5)),
        (nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), (4, 5)),
        (nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), (2, 3, 8)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, eps=0.5), (2, 4, 5, 5)),
    ],
)
def test_one_layer_does_the_work_of_two(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    model = nn.Sequential(layer, settled(norm), nn.ReLU()).double().eval()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norms(model, [("0", "1")])
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)
    assert isinstance(folded.get_submodule("1"), nn.Identity)
    assert isinstance(model.get_submodule("1"), type(norm))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_equation_by_hand() -> None:
    layer, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, eps=1.0)
    for tensor, value in (
        (layer.weight, 2.0),
        (layer.bias, 5.0),
        (norm.weight, 3.0),
        (norm.bias, 7.0),
        (norm.running_mean, 1.0),
        (norm.running_var, 8.0),  # sqrt(8 + 1) = 3
    ):
        assert tensor is not None
        tensor.detach().fill_(value)
    folded = fold_batch_norms(nn.Sequential(layer, norm), [("0", "1")]).get_submodule("0")
    assert folded.weight.item() == 2.0  # 3 * 2 / 3
    assert folded.bias.item() == 11.0  # 3 * (5 - 1) / 3 + 7


def test_zeros_stay_zero_and_frozen_weights_frozen() -> None:
    layer = nn.Linear(4, 4)
    layer.weight.detach()[:, ::2] = 0.0
    layer.weight.requires_grad_(False)
    folded = fold_batch_norms(nn.Sequential(layer, settled(nn.BatchNorm1d(4))), [("0", "1")]).get_submodule(
        "0"
    )
    assert torch.equal(folded.weight == 0, layer.weight == 0)
    assert not folded.weight.requires_grad
    assert folded.weight.dtype == torch.float32


def test_a_batch_norm_without_statistics_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(ModelError, match=r"'1'.*no running statistics"):
        fold_batch_norms(model, [("0", "1")])
