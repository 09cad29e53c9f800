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
    made = None if rule is None else rule(*args, **kwargs)
    return func(*args, **kwargs) if made is None else made


def _empty(x: Tensor, shape: Sequence[int], strides: Sequence[int] | None = None) -> Tensor:
    """Of the dtype of ``x``; ``empty_like`` and ``new_empty`` are written in Python on this device."""
    if strides is None:
        return torch.empty(shape, dtype=x.dtype, device=x.device)
    return torch.empty_strided(shape, strides, dtype=x.dtype, device=x.device)


def _like(x: Tensor, *_: object, **__: object) -> Tensor | None:
    """As wide as the first argument, and of its dtype."""
    return _empty(x, x.shape, x.stride()) if x.is_floating_point() and _is_dense(x) else None


def _is_dense(x: Tensor) -> bool:
    """True where the values lie one beside the other, in any order of the dimensions: what is made of them lies so."""
    if x.is_contiguous():
        return True
    due = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != due:
                return False
            due *= size
    return True


def _itself(x: Tensor, *_: object, **__: object) -> Tensor:
    """Written in place."""
    return x


def _both(x: Tensor, other: object, **rest: object) -> Tensor | None:
    """Of two values, or a value and a number, where the first is as wide as the result."""
    if rest or not x.is_floating_point():
        return None
    if type(other) in (int, float):
        return _like(x)
    if not isinstance(other, Tensor) or other.dtype != x.dtype:
        return None
    if x.shape == other.shape and x.stride() == other.stride():
        return _like(x)
    if not (x.is_contiguous() and other.is_contiguous() and _broadcasts(other, x)):
        return None
    return _empty(x, x.shape)


def _added_to(x: Tensor, other: object, **rest: object) -> Tensor | None:
    """Written in place: what is added must not be wider."""
    if rest or not isinstance(other, Tensor) or other.dtype != x.dtype or x.shape != other.shape:
        return None
    return x


def _broadcasts(x: Tensor, to: Tensor) -> bool:
    return x.dim() <= to.dim() and all(
        one in (1, other) for one, other in zip(reversed(x.shape), reversed(to.shape), strict=False)
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if x.dim() < 2 or weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
        return None
    return _empty(x, (*x.shape[:-1], weight.shape[0]))


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Tensor | None:
    positions = weight.dim() - 2
    if x.dim() != weight.dim() or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    if not (x.is_contiguous() and weight.is_contiguous() and x.dtype == weight.dtype):
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    steps, borders, gaps = (
        list(given) * positions if len(given) == 1 else given for given in (stride, padding, dilation)
    )
    sizes = [
        (size + 2 * border - gap * (kernel - 1) - 1) // step + 1
        for size, kernel, step, border, gap in zip(
            x.shape[2:], weight.shape[2:], steps, borders, gaps, strict=True
        )
    ]
    return _empty(x, (x.shape[0], weight.shape[0], *sizes)) if min(sizes) > 0 else None


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *rest: object,
    attn_mask: Tensor | None = None,
    **__: object,
) -> Tensor | None:
    if query.dim() != 4 or not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return None
    if key.shape[-2] != value.shape[-2] or query.shape[-1] != key.shape[-1]:
        return None
    batch, heads, length, _ = query.shape
    mask = attn_mask if mask is None else mask
    if mask is not None and not _broadcasts(mask, _empty(query, (batch, heads, length, key.shape[-2]))):
        return None
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
    **dict.fromkeys(
        (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), _both
    ),
    **dict.fromkeys((aten.conv1d.default, aten.conv2d.default, aten.conv3d.default), _convolution),
    aten.add_.Tensor: _added_to,
    aten.linear.default: _linear,
    aten.scaled_dot_product_attention.default: _attention,
}  # fmt: skip
