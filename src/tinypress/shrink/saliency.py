"""How much each unit of a group matters: over all that leaves with it, not over one layer's weights alone.

Rule of aggregation: each place where a unit has weights (a row of the layer that computes it, a column of one that
reads it, its norm) gives one number per unit; the numbers of a place are divided by their mean over the units, so
that a large layer does not outvote a small one; then the places are summed. Taylor and Hessian scores are in units of
the loss already and are summed as they are, so that they also compare between groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError, TinypressError
from tinypress.layers import copy_model
from tinypress.shrink.groups import Group, Slice

Saliency = Literal["l1", "l2", "scale", "fpgm", "taylor", "hessian", "activation", "wanda", "random"]
SALIENCIES: tuple[str, ...] = get_args(Saliency)
OF_THE_LOSS = ("taylor", "hessian")
OF_ACTIVATIONS = ("activation", "wanda")

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Evidence:
    """What scores are made from beside the weights, each by name of a parameter or number of a group.

    ``gradient`` is the sum over batches of the gradient, ``square`` that of its square; ``activity`` is the mean of
    |a| and ``energy`` the root of the sum of a^2 of each unit.
    """

    gradient: Mapping[str, Tensor] = field(default_factory=dict)
    square: Mapping[str, Tensor] = field(default_factory=dict)
    activity: Mapping[int, Tensor] = field(default_factory=dict)
    energy: Mapping[int, Tensor] = field(default_factory=dict)


def gradients(call: str, model: nn.Module, losses: Sequence[Loss]) -> Evidence:
    """Gradients of each of ``losses``, one for each batch, on a copy in evaluation mode.

    Raises:
        InputError: there is none.
        ModelError: a loss is no finite number.
    """
    if not losses:
        raise InputError(
            call,
            "this importance needs the loss on some data",
            "Give losses=[lambda model: loss(model(inputs), targets), ...], one for each batch; or choose 'l2'",
        )
    model = copy_model(model).eval()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradient = {name: torch.zeros_like(p) for name, p in named.items()}
    square = {name: torch.zeros_like(p) for name, p in named.items()}
    for loss in losses:
        try:
            with torch.enable_grad():
                value = loss(model)
        except TinypressError:
            raise
        except Exception as error:
            raise ModelError(
                call, f"a loss failed ({type(error).__name__}: {error})", "Give losses that take the network"
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not bool(torch.isfinite(value)):
            shown = value if not isinstance(value, Tensor) or value.numel() == 1 else tuple(value.shape)
            raise ModelError(
                call,
                f"a loss is {shown}, not one finite number",
                "Give losses that are means over a batch",
            )
        if not value.requires_grad:
            raise ModelError(
                call,
                "a loss hangs on no parameter of the network",
                "Compute it from the outputs of the network",
            )
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        for (name, _), each in zip(named.items(), found, strict=True):
            if each is not None:
                gradient[name] += each
                square[name] += each.square()
    return Evidence(gradient=gradient, square=square)


def score_units(
    tensors: Mapping[str, Tensor],
    group: Group,
    number: int,
    saliency: Saliency,
    evidence: Evidence,
    seed: int,
) -> Tensor:
    """The importance of each unit of a group, float64 [width]; a smaller one leaves first.

    With w the weights of a unit at one place and g their gradient:
    ``l1`` sum |w|; ``l2`` sqrt(sum w^2), Li et al. 2017; ``scale`` |gamma| of its batch norms, Liu et al. 2017;
    ``fpgm`` sum over the others of the distance of the weights that compute it, He et al. 2019, equation 4;
    ``taylor`` (sum g w)^2, Molchanov et al. 2019, equation 8, over a place; ``hessian`` sum g^2 w^2 / 2, LeCun et al.
    1990, equation 5, with the Fisher diagonal; ``activation`` mean |a|; ``wanda`` sum |w| ||a|| over what reads it,
    Sun et al. 2024, equation 1; ``random`` a uniform number.

    Args:
        tensors: parameters and buffers of the network by name.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    if saliency == "random":
        generator = torch.Generator().manual_seed(seed + number)
        return torch.rand(group.width, generator=generator, dtype=torch.float64)
    if saliency == "activation":
        total = evidence.activity[number].double()
    elif saliency == "fpgm":
        sources = [part for part in group.slices if (part.tensor, part.dim) in group.sources]
        total = torch.from_numpy(
            _mean_of_one([_distances(_rows(tensors[part.tensor], part), part) for part in sources])
        )
    else:
        total = torch.from_numpy(_summed(group, number, saliency, evidence, tensors))
    if not bool(torch.isfinite(total).all()):
        at = int((~torch.isfinite(total)).nonzero()[0])
        raise ModelError(
            f"score_units({group.producers[0]!r}, {saliency!r})",
            f"the importance of unit {at} is {float(total[at])}",
            "Load the weights of a training that did not diverge, and clean the calibration samples",
        )
    return total


Numbers = NDArray[np.float64]


def _summed(
    group: Group, number: int, saliency: Saliency, evidence: Evidence, tensors: Mapping[str, Tensor]
) -> Numbers:
    places: list[Numbers] = []
    for part in group.slices:
        if not isinstance(tensors[part.tensor], nn.Parameter):
            continue
        if saliency == "l2":
            places.append(np.sqrt(_per_unit(_squares(tensors[part.tensor], part.dim), part)))
            continue
        weights = _rows(tensors[part.tensor], part)
        of_a_norm = tensors[part.tensor].dim() == 1 and part.tensor.endswith("weight")
        if saliency == "l1" or (saliency == "scale" and of_a_norm):
            places.append(_per_unit(weights.abs().sum(1).numpy(), part))
        elif saliency == "taylor" and part.tensor in evidence.gradient:
            product = (weights * _rows(evidence.gradient[part.tensor], part)).sum(1)
            places.append(np.square(_per_unit(product.numpy(), part)))
        elif saliency == "hessian" and part.tensor in evidence.square:
            product = (weights.square() * _rows(evidence.square[part.tensor], part)).sum(1) / 2
            places.append(_per_unit(product.numpy(), part))
        elif saliency == "wanda" and (part.tensor, part.dim) not in group.sources and weights.shape[1] > 1:
            energy = evidence.energy[number].double().numpy()
            places.append(_per_unit(weights.abs().sum(1).numpy(), part) * energy)
    if saliency in OF_THE_LOSS:
        return np.sum(places, axis=0) if places else np.zeros(group.width)
    if not places:  # no norm, or nothing that reads it: by its size
        return _summed(group, number, "l2", evidence, tensors)
    return _mean_of_one(places)


def _rows(tensor: Tensor, part: Slice) -> Tensor:
    """The values at each index of the slice's dimension: float64 [size, rest]."""
    return tensor.detach().movedim(part.dim, 0).reshape(tensor.shape[part.dim], -1).double().cpu()


def _per_unit(values: Numbers, part: Slice) -> Numbers:
    """Values by index summed up by unit."""
    own = values[part.at]
    return (
        own if part.each_has_one else np.bincount(part.units, own, part.width).astype(np.float64, copy=False)
    )


_BLOCK = 1 << 20  # numbers: their squares stay in the cache


def _squares(tensor: Tensor, dim: int) -> Numbers:
    """The sum of the squares of the values at each index of a dimension, float64 [size]."""
    values = tensor.detach()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    if values.dim() == 1:
        return _squared(values)
    # torch's norms over the first dimensions of a tensor jump through its memory: this goes through it once
    before, size = math.prod(values.shape[:dim]), values.shape[dim]
    cube = values.reshape(before, size, -1)
    if before == 1:
        lengths: Tensor = torch.linalg.vector_norm(cube[0], dim=1)
        return _squared(lengths)
    rows = max(_BLOCK // max(size * cube.shape[2], 1), 1)
    parts = (cube[start : start + rows] for start in range(0, before, rows))
    sums = [part.square().sum(0).sum(1) for part in parts]
    total: Numbers = np.sum([each.cpu().numpy() for each in sums], axis=0, dtype=np.float64)
    return total


def _squared(values: Tensor) -> Numbers:
    squares: Numbers = np.square(values.cpu().numpy(), dtype=np.float64)
    return squares


def _mean_of_one(places: Sequence[Numbers]) -> Numbers:
    scaled = [place / mean if (mean := place.mean()) > 0 else place for place in places]
    total: Numbers = np.sum(scaled, axis=0)
    return total


def _distances(rows: Tensor, part: Slice) -> Numbers:
    return _per_unit(torch.cdist(rows, rows).sum(1).numpy(), part)
