"""Keeps a compressed network in one file, each tensor in the smallest lossless way."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tinypress.archive.container import first_problem, to_bytes
from tinypress.archive.encode import encode, unusable
from tinypress.archive.plan import Plan, StoredAlias, StoredLayer, StoredTensor, StoredValue
from tinypress.errors import ModelError
from tinypress.facts import Compressed, QuantizedValue, QuantizedWeight, QuantPlan
from tinypress.files import write_bytes
from tinypress.layers import owned_tensors, structure


def write_archive(path: Path, compressed: Compressed, *, name: str = "") -> None:
    """Write the network of ``compressed`` with its quantization plan and the names of its pruned parameters.

    The file is whole or absent, and equal networks give equal bytes. ``changes`` and ``notes`` are not kept,
    nor is anything about the network but its tensors: ``read_archive`` asks for the stock network again.

    Args:
        name: a word of the writer's own that the file carries.

    Raises:
        ModelError: NaN, an infinite parameter, a dtype or a state that cannot be stored, or a plan that is
            not about this network; the text names the tensor.
        RunError: the folder cannot be written or the disk is full.
    """
    model = compressed.model
    call = f"write_archive({path.name!r}, {type(model).__name__})"
    try:
        file = _archive(call, model, compressed.plan, compressed.pruned, name)
    except ValidationError as error:
        raise ModelError(call, first_problem(error), "Use plain names for modules and values") from error
    write_bytes(path, file)


def _archive(call: str, model: nn.Module, plan: QuantPlan | None, pruned: frozenset[str], name: str) -> bytes:
    _refuse_hidden_state(call, model)
    weights = {} if plan is None else plan.weights
    stored, aliases = _shared(model)
    layers, data = _layers(call, model, stored, _by_tensor(call, weights, stored.keys(), aliases))
    full_names = [layer.full_name(row) for layer in layers for row in layer.tensors]
    numbers = {full: number for number, full in enumerate([*full_names, *aliases])}
    for full in sorted(pruned - numbers.keys()):
        raise _refuse(call, full, "it is among the pruned, and the network has no tensor of that name")
    quantized = tuple(sorted(numbers[full] for full in weights))
    values = {} if plan is None else plan.values
    written = Plan(
        name=name,
        crc32=zlib.crc32(data),
        layers=layers,
        aliases=tuple(StoredAlias(name=alias, target=numbers[full]) for alias, full in aliases.items()),
        pruned=tuple(sorted(numbers[full] for full in pruned)),
        quantized=quantized if any(alias in weights for alias in aliases) else None,
        values=None if plan is None else tuple(_value(key, values[key]) for key in sorted(values)),
        dynamic=() if plan is None else tuple(sorted(numbers[full] for full in plan.dynamic)),
    )
    return to_bytes(written, data)


def _shared(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once, by its first full name, and every further name with that first one."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        for short, tensor in owned_tensors(layer).items():
            full = f"{path}.{short}" if path else short
            if first.setdefault(id(tensor), full) == full:
                stored[full] = tensor
            else:
                aliases[full] = first[id(tensor)]
    return stored, aliases


def _by_tensor(
    call: str, weights: Mapping[str, QuantizedWeight], stored: Collection[str], aliases: Mapping[str, str]
) -> dict[str, QuantizedWeight]:
    """The integers of each tensor, by its first name."""
    found: dict[str, QuantizedWeight] = {}
    for full, weight in weights.items():
        first = aliases.get(full, full)
        if first not in stored:
            raise _refuse(call, full, "the plan quantizes it, and the network has no tensor of that name")
        if not _same(found.setdefault(first, weight), weight):
            raise _refuse(call, full, f"it is one tensor with {first}, and their integers differ")
    return found


def _same(one: QuantizedWeight, other: QuantizedWeight) -> bool:
    tensors = ((one.packed, other.packed), (one.scale, other.scale), (one.zero_point, other.zero_point))
    settings = [(w.shape, w.bits, w.scheme, w.axis, w.group_size) for w in (one, other)]
    balances = [w.input_scale for w in (one, other) if w.input_scale is not None]
    if settings[0] != settings[1] or len(balances) == 1:
        return False
    return all(torch.equal(a, b) for a, b in tensors) and (not balances or torch.equal(*balances))


def _layers(
    call: str, model: nn.Module, stored: Mapping[str, Tensor], integers: Mapping[str, QuantizedWeight]
) -> tuple[tuple[StoredLayer, ...], bytes]:
    """The rows of all layers and the bytes of their tensors, end to end."""
    layers: list[StoredLayer] = []
    pieces: list[bytes] = []
    for shape in structure(model):
        rows: list[StoredTensor] = []
        for short in shape.tensors:
            full = f"{shape.module}.{short}" if shape.module else short
            if full not in stored:
                continue  # an alias
            row, piece = _encode(call, full, short, stored[full], integers.get(full))
            rows.append(row)
            pieces.append(piece)
        layers.append(
            StoredLayer(
                module=shape.module, kind=shape.kind, attributes=dict(shape.attributes), tensors=tuple(rows)
            )
        )
    return tuple(layers), b"".join(pieces)


def _encode(
    call: str, full: str, short: str, tensor: Tensor, weight: QuantizedWeight | None
) -> tuple[StoredTensor, bytes]:
    problem = unusable(tensor, parameter=isinstance(tensor, nn.Parameter))
    if problem is not None:
        raise _refuse(call, full, problem)
    try:
        return encode(short, tensor, weight)
    except ValueError as error:
        text = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise _refuse(call, full, text) from error


def _value(name: str, value: QuantizedValue) -> StoredValue:
    return StoredValue(name=name, scale=value.scale, zero_point=value.zero_point, bits=value.bits)


def _refuse_hidden_state(call: str, model: nn.Module) -> None:
    """State outside of parameters and buffers would be lost without a word."""
    for path, layer in model.named_modules():
        if type(layer).get_extra_state is not nn.Module.get_extra_state:
            raise _refuse(call, path, f"a {type(layer).__name__} has extra state, which is not a tensor")


def _refuse(call: str, full: str, problem: str) -> ModelError:
    return ModelError(call, f"{full!r}: {problem}", "Repair the network before it is kept")
