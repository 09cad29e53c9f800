"""What an operation makes on the meta device. For those that networks are full of, the shape is known without asking
torch, which writes many of its answers in Python and takes milliseconds for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def meta_call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``func(*args, **kwargs)`` on tensors of the meta device."""
    rule = _RULES.get(func)
    made = None if rule is None or kwargs else rule(*args)
    return func(*args, **kwargs) if made is None else made


def _empty(x: Tensor, shape: Sequence[int], strides: Sequence[int] | None = None) -> Tensor:
    """Of the dtype of ``x``; ``empty_like`` and ``new_empty`` are written in Python on this device."""
    if strides is None:
        return torch.empty(shape, dtype=x.dtype, device=x.device)
    return torch.empty_strided(shape, strides, dtype=x.dtype, device=x.device)


def _like(x: Tensor, *_: object) -> Tensor | None:
    """As wide as the first argument, and of its dtype."""
    return _empty(x, x.shape, x.stride()) if x.is_floating_point() else None


def _itself(x: Tensor, *_: object) -> Tensor:
    """Written in place."""
    return x


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if x.dim() < 2 or weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
        return None
    return _empty(x, (*x.shape[:-1], weight.shape[0]))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *rest: object
) -> Tensor | None:
    if query.dim() != 4 or not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return None
    batch, heads, length, _ = query.shape
    # in memory the heads lie beside each other, as the CPU's kernel leaves them
    return _empty(query, (batch, length, heads, value.shape[-1])).transpose(1, 2)


_RULES: dict[object, Callable[..., Tensor | None]] = {
    **dict.fromkeys(
        (
            aten.batch_norm.default, aten.layer_norm.default, aten.group_norm.default, aten.rms_norm.default,
            aten.relu.default, aten.gelu.default, aten.silu.default, aten.sigmoid.default, aten.tanh.default,
            aten.hardtanh.default, aten.relu6.default, aten.hardswish.default, aten.hardsigmoid.default,
            aten.leaky_relu.default, aten.elu.default, aten.mish.default, aten.softplus.default,
        ),
        _like,
    ),
    **dict.fromkeys(
        (
            aten.relu_.default, aten.silu_.default, aten.sigmoid_.default, aten.hardtanh_.default,
            aten.relu6_.default, aten.hardswish_.default, aten.hardsigmoid_.default, aten.leaky_relu_.default,
        ),
        _itself,
    ),
    aten.linear.default: _linear,
    aten.scaled_dot_product_attention.default: _attention,
}  # fmt: skip
