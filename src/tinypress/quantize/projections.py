"""The weight that ``nn.MultiheadAttention`` keeps for its queries, keys and values together, as the Linear it is."""

from __future__ import annotations

from torch import Tensor, nn


def input_projection(attention: nn.MultiheadAttention) -> nn.Linear | None:
    """A Linear on the same parameter [3 E, E]; ``None`` where queries, keys and values have weights of their own."""
    weight: Tensor | None = attention.in_proj_weight
    if weight is None:
        return None
    return as_linear(weight)


def as_linear(weight: Tensor) -> nn.Linear:
    """A Linear with the weight [O, I], which a layer of another kind keeps."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach(), weight.requires_grad)
    return layer


def put_projection(attention: nn.MultiheadAttention, layer: nn.Linear) -> None:
    """Give ``attention`` the weight of ``layer``."""
    attention.in_proj_weight = nn.Parameter(layer.weight.detach(), layer.weight.requires_grad)
