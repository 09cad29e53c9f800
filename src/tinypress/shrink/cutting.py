"""The smaller tensors of a cut network, and a copy of the network with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tinypress.layers import copy_model, fit_attributes, named_tensors
from tinypress.shrink.groups import Group


@dataclass(frozen=True)
class Cut:
    """The neurons to be removed from one group."""

    group: Group
    units: tuple[int, ...]


@dataclass(frozen=True)
class Thinner:
    """A ``whole`` tensor without what is cut out of it, and the places that are left along each dimension that lost
    some."""

    whole: Tensor
    tensor: Tensor
    kept: Mapping[int, NDArray[np.intp]]

    def is_of(self, dim: int, places: NDArray[np.intp]) -> bool:
        """Whether these are the places that are left along ``dim``."""
        if dim in self.kept:
            return np.array_equal(self.kept[dim], places)
        return len(places) == self.tensor.shape[dim]


def cut_out(model: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """A copy of ``model`` without the neurons named by ``cuts``; dtype, ``requires_grad``, shared parameters
    and training mode are those of ``model``."""
    return with_tensors(model, thinner_tensors(model, cuts))


def thinner_tensors(model: nn.Module, cuts: Sequence[Cut]) -> dict[str, Thinner]:
    """By name every parameter and buffer of ``model`` that loses something."""
    parameters, buffers = named_tensors(model)
    named: dict[str, Tensor] = {**parameters, **buffers}
    left: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for cut in cuts:
        for part in cut.group.slices:
            indices = part.of(cut.units)
            if len(indices):
                own = left.setdefault(part.tensor, {})
                if part.dim not in own:
                    own[part.dim] = np.ones(named[part.tensor].shape[part.dim], dtype=bool)
                own[part.dim][indices] = False
    return {name: _thinner(named[name], dims) for name, dims in left.items()}


def _thinner(tensor: Tensor, left: Mapping[int, NDArray[np.bool_]]) -> Thinner:
    kept = {dim: np.flatnonzero(places) for dim, places in left.items()}
    values = tensor.detach()
    for dim, places in kept.items():
        values = _taken(values, dim, places)
    if isinstance(tensor, nn.Parameter):
        values = nn.Parameter(values, tensor.requires_grad)
    return Thinner(tensor, values, kept)


def _taken(values: Tensor, dim: int, places: NDArray[np.intp]) -> Tensor:
    """The places of one dimension; by numpy where it can, whose large arrays lie on large pages: twice as fast."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.index_select(dim, torch.from_numpy(places).to(values.device))
    return torch.from_numpy(np.take(values.numpy(), places, axis=dim))


def with_tensors(model: nn.Module, thinner: Mapping[str, Thinner]) -> nn.Module:
    """A copy of ``model`` with these tensors, its layers' attributes those of their shapes."""
    copied = copy_model(model, instead={each.whole: each.tensor for each in thinner.values()})
    smaller = {id(each.tensor): each for each in thinner.values()}
    for layer in copied.modules():
        touched = False
        if isinstance(layer, _ConvNd) and layer.groups > 1 and id(layer.weight) in smaller:
            layer.groups -= _lost_groups(layer, smaller[id(layer.weight)])
        for store in (layer._parameters, layer._buffers):
            for short, tensor in list(store.items()):
                if tensor is not None and id(tensor) in smaller:
                    setattr(layer, short, tensor)  # some layers keep what they are given in other places too
                    touched = True
        if touched:
            fit_attributes(layer)
    return copied


def _lost_groups(layer: _ConvNd, weight: Thinner) -> int:
    """How many groups of a grouped convolution lose every channel; of the others each loses as many."""
    if 0 not in weight.kept:
        return 0
    left = np.zeros(layer.out_channels, dtype=bool)
    left[weight.kept[0]] = True
    return int((~left.reshape(layer.groups, -1).any(1)).sum())
