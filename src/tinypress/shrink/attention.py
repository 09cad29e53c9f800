"""Rules for products of values, which is what attention is made of: heads leave as units.

Of two values that are multiplied, the dimension that is summed is tied, and so are the leading dimensions: a head
of the queries leaves with its keys and values. Vaswani et al., "Attention Is All You Need" (2017), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tinypress.graph import Node, arguments
from tinypress.shrink.flow import Dims, Flow, Labels, operation

aten = torch.ops.aten


def broadcast(flow: Flow, one: Dims, other: Dims) -> Dims:
    """Dimensions aligned at the last one; those of equal size are tied, those of size 1 give way."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    result: list[Labels] = list(longer[: len(longer) - len(shorter)])
    for left, right in zip(longer[len(longer) - len(shorter) :], shorter, strict=True):
        if len(left) == len(right):
            flow.tie(left, right)
        result.append(right if len(left) == 1 else left)
    return tuple(result)


def product(flow: Flow, node: Node) -> Dims | None:
    """[..., I, K] x [..., K, J] -> [..., I, J]."""
    given = arguments(node)
    first, second = (given.get("self"), given.get("other", given.get("mat2")))
    return _product(flow, first, second)


def product_with_bias(flow: Flow, node: Node) -> Dims | None:
    """bias + x W, with W [in, out]."""
    given = arguments(node)
    names = ("mat1", "mat2") if "mat1" in given else ("batch1", "batch2")
    result = _product(flow, *(given[name] for name in names))
    bias = flow.dims(given["self"])
    return None if result is None or bias is None else broadcast(flow, result, bias)


def _product(flow: Flow, first: object, second: object) -> Dims | None:
    a, b = flow.dims(first), flow.dims(second)
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    flow.tie(a[-1], b[-2])
    if flow.is_parameter(second):
        flow.produce(second, len(b) - 1)
    elif flow.is_parameter(first):
        flow.produce(first, len(a) - 2)
    else:
        flow.mark("summed in a product", a[-1])
    leading = broadcast(flow, a[:-2], b[:-2])
    for labels in leading:
        flow.mark("batch of a product", labels)
    return (*leading, a[-2], b[-1])


def attention(flow: Flow, node: Node) -> Dims | None:
    """softmax(q k^T scale) v; with grouped queries a head of k and v serves several of q."""
    given = arguments(node)
    q, k, v = (flow.dims(given.get(name)) for name in ("query", "key", "value"))
    if q is None or k is None or v is None:
        return None
    flow.tie(q[-1], k[-1])
    flow.tie(k[-2], v[-2])
    flow.mark("summed in a product", q[-1])
    if given.get("scale") is None:  # it is then taken from the width of a head, which therefore stays
        for labels in (q[-1], k[-1]):
            flow.fence(labels, operation(node))
    leading = broadcast(flow, k[:-2], v[:-2])
    if len(q) > 2 and len(q[-3]) != len(leading[-1]) and given.get("enable_gqa"):
        repeated = np.repeat(leading[-1], len(q[-3]) // len(leading[-1]))
        leading = (*leading[:-1], repeated)
    leading = broadcast(flow, q[:-2], leading)
    for labels in leading:
        flow.mark("batch of a product", labels)
    mask = flow.dims(given.get("attn_mask"))
    if mask is not None:
        broadcast(flow, (*leading, q[-2], k[-2]), mask)
    return (*leading, q[-2], v[-1])


def einsum(flow: Flow, node: Node) -> Dims | None:
    """A sum of products, its dimensions named by letters; those of one letter are tied."""
    given = arguments(node)
    equation = str(given["equation"]).replace(" ", "")
    values = [flow.dims(value) for value in given["tensors"]]
    if "->" not in equation or "." in equation or any(dims is None for dims in values):
        return None
    left, right = equation.split("->")
    letters: dict[str, list[Labels]] = {}
    for names, dims in zip(left.split(","), values, strict=True):
        for letter, labels in zip(names, dims or (), strict=True):
            letters.setdefault(letter, []).append(labels)
    parameters = [flow.is_parameter(value) for value in given["tensors"]]
    for letter, found in letters.items():
        for labels in found[1:]:
            flow.tie(found[0], labels)
        if len(found) > 1 and not any(parameters):
            flow.mark("batch of a product" if letter in right else "summed in a product", found[0])
    for value, names, is_parameter in zip(given["tensors"], left.split(","), parameters, strict=True):
        if is_parameter:
            for dim, letter in enumerate(names):
                if letter in right and len(letters[letter]) == 1:
                    flow.produce(value, dim)
    return tuple(letters[letter][0] for letter in right)


PRODUCTS: dict[object, Callable[[Flow, Node], Dims | None]] = {
    **dict.fromkeys((aten.matmul, aten.mm, aten.bmm), product),
    **dict.fromkeys((aten.addmm, aten.baddbmm), product_with_bias),
    aten.scaled_dot_product_attention: attention,
    aten.einsum: einsum,
}
