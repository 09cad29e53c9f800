"""Puts the tensors of an archive into a network, each under all of its names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tinypress.archive.encode import unusable
from tinypress.layers import owned_tensors


@dataclass(frozen=True)
class Place:
    """Where a tensor lives under one of its names."""

    owner: nn.Module
    short: str
    tensor: Tensor

    @property
    def is_parameter(self) -> bool:
        return isinstance(self.tensor, nn.Parameter)


def places(model: nn.Module) -> dict[str, Place]:
    """Every full name of every parameter and persistent buffer."""
    return {
        f"{path}.{short}" if path else short: Place(layer, short, tensor)
        for path, layer in model.named_modules(remove_duplicate=False)
        for short, tensor in owned_tensors(layer).items()
    }


def check_fit(model: nn.Module, groups: Sequence[Sequence[str]], values: Sequence[Tensor]) -> None:
    """Hold that the network has exactly these names, and each with the shape and dtype of its value.

    Args:
        groups: for each value all of its names.

    Raises:
        ValueError: the text names the tensor.
    """
    owned = places(model)
    known = {name for names in groups for name in names}
    for name in sorted(known ^ owned.keys()):
        where = "the archive" if name in owned else "the stock network"
        raise ValueError(f"{name[:200]!r} is not in {where}")
    for names, value in zip(groups, values, strict=True):
        for name in names:
            place = owned[name]
            if place.tensor.shape != value.shape:
                needed = f"the stock network needs {list(place.tensor.shape)}"
                raise ValueError(f"{name!r}: shape is {list(value.shape)}, {needed}")
            if place.tensor.dtype != value.dtype:
                raise ValueError(
                    f"{name!r}: dtype is {value.dtype}, the stock network has {place.tensor.dtype}"
                )
            if place.is_parameter != owned[names[0]].is_parameter:
                raise ValueError(f"aliases: {name!r} and {names[0]!r} are not both parameters")
        problem = unusable(value, parameter=owned[names[0]].is_parameter)
        if problem is not None:
            raise ValueError(f"{names[0]!r}: {problem}")


def fill(model: nn.Module, groups: Sequence[Sequence[str]], values: Sequence[Tensor]) -> None:
    """Give every tensor its value, in place; names share one tensor where ``groups`` says so, and only there.

    Raises:
        ValueError: one module stands under two names whose tensors ``groups`` keeps apart.
    """
    owned = places(model)
    sharing: dict[int, set[str]] = {}
    for name, place in owned.items():
        sharing.setdefault(id(place.tensor), set()).add(name)
    for names, value in zip(groups, values, strict=True):
        tensor = owned[names[0]].tensor
        here = value.to(tensor.device)
        if sharing[id(tensor)] == set(names):
            tensor.data = here  # keeps who else holds it, and works for expanded buffers
            continue
        new = nn.Parameter(here, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else here
        for name in names:
            setattr(owned[name].owner, owned[name].short, new)
    filled = places(model)
    if len({id(filled[names[0]].tensor) for names in groups}) != len(groups):
        raise ValueError("aliases: the stock network shares a module that the archive keeps apart")
    for names in groups:
        if any(filled[name].tensor is not filled[names[0]].tensor for name in names):
            raise ValueError(f"aliases: {names[0]!r} does not stand under all of its names")
