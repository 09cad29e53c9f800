"""Cut neurons out of a copy of the network, and give back those without which its forward pass fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tinypress.facts import Change, Note
from tinypress.graph import forward_eval, tensors_of
from tinypress.layers import attributes_of, copy_model, fit_attributes, owned_tensors
from tinypress.shrink.groups import Group


@dataclass(frozen=True)
class Cut:
    """The neurons to be removed from one group."""

    group: Group
    units: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """The cut network, what changed in it, and a note for each group that had to be given back."""

    model: nn.Module
    changes: tuple[Change, ...]
    notes: tuple[Note, ...] = field(default=())


def operate(model: nn.Module, cuts: Sequence[Cut], example_inputs: tuple[Tensor, ...]) -> Outcome:
    """Make all ``cuts`` in a copy of ``model`` and run it on its example.

    If the forward pass then fails, because some code in it counts on a width, the cuts are made one by one
    and those that break it are left out, each with a note TP302.
    """
    shapes = _output_shapes(model, example_inputs)
    whole = cut_out(model, cuts)
    if _failure(whole, example_inputs, shapes) is None:
        return Outcome(whole, changes_between(model, whole))
    kept: list[Cut] = []
    notes: list[Note] = []
    for cut in cuts:
        failure = _failure(cut_out(model, [*kept, cut]), example_inputs, shapes)
        if failure is None:
            kept.append(cut)
        else:
            layer = cut.group.producers[0]
            notes.append(
                Note(
                    "TP302",
                    "warning",
                    layer,
                    f"{layer} keeps its {cut.group.width} neurons: without {len(cut.units)} of them the forward "
                    f"pass fails ({failure}); write no literal widths in forward(), or name them in keep",
                )
            )
    smaller = cut_out(model, kept)
    return Outcome(smaller, changes_between(model, smaller), tuple(notes))


def _output_shapes(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in tensors_of(forward_eval(model, example_inputs))]


def _failure(
    model: nn.Module, example_inputs: tuple[Tensor, ...], shapes: list[tuple[int, ...]]
) -> str | None:
    """What goes wrong in the forward pass, None if the output keeps its shapes."""
    try:
        now = _output_shapes(model, example_inputs)
    except Exception as error:  # whatever the user's forward() raises
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None if now == shapes else f"its output has shapes {now}, not {shapes}"


def check_forward(model: nn.Module, original: nn.Module, example_inputs: tuple[Tensor, ...]) -> str | None:
    """What goes wrong when ``model`` runs in place of ``original``, None if the output keeps its shapes."""
    return _failure(model, example_inputs, _output_shapes(original, example_inputs))


def cut_out(model: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """A copy of ``model`` without the neurons named by ``cuts``; dtype, ``requires_grad``, shared parameters
    and training mode are those of ``model``."""
    gone: dict[str, dict[int, set[int]]] = {}
    for cut in cuts:
        for part in cut.group.slices:
            indices = {index for unit in cut.units for index in part.indices[unit]}
            if indices:
                gone.setdefault(part.tensor, {}).setdefault(part.dim, set()).update(indices)
    copied = copy_model(model)
    named: dict[str, Tensor] = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    smaller = {id(named[name]): _without(named[name], dims) for name, dims in gone.items()}
    for layer in copied.modules():
        touched = False
        for store in (layer._parameters, layer._buffers):
            for short, tensor in list(store.items()):
                if tensor is not None and id(tensor) in smaller:
                    setattr(layer, short, smaller[id(tensor)])
                    touched = True
        if touched:
            fit_attributes(layer)
    return copied


def _without(tensor: Tensor, gone: Mapping[int, set[int]]) -> Tensor:
    values = tensor.detach()
    for dim, indices in gone.items():
        kept = [i for i in range(values.shape[dim]) if i not in indices]
        values = values.index_select(dim, torch.tensor(kept, device=values.device))
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def changes_between(before: nn.Module, after: nn.Module) -> tuple[Change, ...]:
    """Every width that differs: an attribute of a layer, or else the size of one of its tensors."""
    changes = []
    old_modules = dict(before.named_modules())
    for path, layer in after.named_modules():
        old = old_modules[path]
        was = {k: v for k, v in attributes_of(old).items() if isinstance(v, int)}
        now = attributes_of(layer)
        if not attributes_of(layer):
            was, now = _sizes(old), dict(_sizes(layer))
        for name, value in was.items():
            new = now[name]
            if new != value and isinstance(new, int):
                changes.append(Change(path, name, value, new))
    return tuple(changes)


def _sizes(layer: nn.Module) -> dict[str, int]:
    return {
        f"{name}.shape[{dim}]": size
        for name, tensor in owned_tensors(layer).items()
        for dim, size in enumerate(tensor.shape)
    }
