"""Opens an archive on a copy of the stock network. The file may be hostile: everything is checked before use,
and nothing that it names is imported or run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from tinypress.archive.container import DAMAGED, load, pieces
from tinypress.archive.encode import Decoded, decode
from tinypress.archive.place import check_fit, fill
from tinypress.archive.plan import Plan, StoredTensor
from tinypress.errors import ArtifactError, InputError, ModelError
from tinypress.facts import Compressed, QuantizedValue, QuantPlan
from tinypress.layers import LayerShape, owned_tensors, rebuild

# A factorized layer is at most twice its original, nothing else that is kept ever grows.
_GROWTH = 4
_OTHER_STOCK = "Give the stock network that the archived one was made from"


def read_archive(path: Path, stock: nn.Module) -> Compressed:
    """The network that ``write_archive`` kept, in evaluation mode, with its plan and pruned names.

    Tensors are bit by bit what they were; quantized ones are ``(q - zero_point) * scale`` in float32.

    Args:
        stock: the network as its builder returns it, before it was pressed; it is not changed.

    Raises:
        InputError: ``stock`` is not a network.
        ArtifactError: the file cannot be read, is truncated, foreign or hostile, or belongs to another stock
            network; the text names the field or the tensor.
    """
    path = Path(path)
    call = f"read_archive({path.name!r}, {type(stock).__name__})"
    if not isinstance(stock, nn.Module):
        raise InputError(call, "stock is not a torch.nn.Module", "Give the network that builder() returns")
    elements = sum(tensor.numel() for layer in stock.modules() for tensor in owned_tensors(layer).values())
    limit = _GROWTH * elements
    plan, data = load(path, call, limit_elements=limit)
    try:
        model = rebuild(stock, _shapes(plan), limit_elements=limit).eval()
    except ModelError as error:
        raise ArtifactError(call, f"layers: {error.call}: {error.problem}", _OTHER_STOCK) from error
    decoded = [_decode(call, name, row, piece) for name, row, piece in pieces(plan, data)]
    groups: list[list[str]] = [[] for _ in decoded]
    for name, number in plan.names():
        groups[number].append(name)
    tensors = [found.tensor for found in decoded]
    try:
        check_fit(model, groups, tensors)
        fill(model, groups, tensors)
    except ValueError as error:
        raise ArtifactError(call, str(error), _OTHER_STOCK) from error
    names = [name for name, _ in plan.names()]
    return Compressed(
        model=model,
        pruned=frozenset(names[number] for number in plan.pruned),
        plan=_quant_plan(plan, decoded),
    )


def _shapes(plan: Plan) -> tuple[LayerShape, ...]:
    rows = [row for _, row in plan.tensors()]
    shapes = {name: list(rows[number].shape) for name, number in plan.names()}
    further: dict[str, list[str]] = {}
    for alias in plan.aliases:
        module, _, short = alias.name.rpartition(".")
        further.setdefault(module, []).append(short)
    layers = []
    for layer in plan.layers:
        shorts = [row.name for row in layer.tensors] + further.get(layer.module, [])
        prefix = f"{layer.module}." if layer.module else ""
        owned = {short: shapes[prefix + short] for short in shorts}
        layers.append(LayerShape(layer.module, layer.kind, layer.attributes, owned))
    return tuple(layers)


def _decode(call: str, name: str, row: StoredTensor, piece: memoryview) -> Decoded:
    try:
        return decode(row, piece)
    except ValueError as error:
        raise ArtifactError(call, f"{name!r}: {error}", DAMAGED) from error


def _quant_plan(plan: Plan, decoded: Sequence[Decoded]) -> QuantPlan | None:
    if plan.values is None:
        return None
    weights = {
        name: weight
        for number, (name, target) in enumerate(plan.names())
        if (weight := decoded[target].weight) is not None
        and (number in plan.quantized if plan.quantized is not None else number < len(decoded))
    }
    values = {value.name: QuantizedValue(value.scale, value.zero_point, value.bits) for value in plan.values}
    names = [name for name, _ in plan.names()]
    return QuantPlan(weights, values, frozenset(names[number] for number in plan.dynamic))
