"""What the class of a Hugging Face network makes of its config with other numbers, without memory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tinypress.layers import put_config
from tinypress.layers.copying import deep_copy

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(model: nn.Module) -> Shapes:
    """Of the parameters and buffers by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


class Builds:
    """What the class of a network makes of its config with other numbers, on the meta device; built once for each."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._shapes: dict[frozenset[tuple[str, int]], Shapes | None] = {}
        self._orders: dict[frozenset[tuple[str, int]], list[tuple[int, ...]]] = {}
        self._last: tuple[frozenset[tuple[str, int]], nn.Module | None] | None = None

    def counts(self) -> set[int]:
        """How many modules the lists of the network hold."""
        lists = (layer for layer in self._layer.modules() if isinstance(layer, nn.ModuleList | nn.Sequential))
        return {len(each) for each in lists}

    def shapes(self, numbers: Mapping[str, int]) -> Shapes | None:
        """Of the tensors by name; None where the constructor refuses."""
        key = frozenset(numbers.items())
        if key not in self._shapes:
            self._build(numbers, ())
        return self._shapes[key]

    def makes(self, numbers: Mapping[str, int], like: Mapping[str, int]) -> bool:
        """Whether ``numbers`` make the shapes that ``like`` makes; where not, building ends at the first other."""
        due = self.shapes(like)
        key = frozenset(numbers.items())
        if key not in self._shapes:
            self._build(numbers, self._orders[frozenset(like.items())])
            if self._shapes[key] is None:
                del self._shapes[key]  # it may only have been left unfinished
                return False
        return self._shapes[key] == due

    def only(self, numbers: Mapping[str, int], due: Shapes, were: Shapes) -> dict[str, int] | None:
        """``numbers``, if they make the shapes ``due``; where not, building ends at the first tensor that is as wide as
        only the network before was."""
        self._build(numbers, (), frozenset(were.values()) - frozenset(due.values()))
        return dict(numbers) if self._shapes[frozenset(numbers.items())] == due else None

    def _build(
        self,
        numbers: Mapping[str, int],
        due: Sequence[tuple[int, ...]],
        gone: frozenset[tuple[int, ...]] = frozenset(),
    ) -> None:
        key, building = frozenset(numbers.items()), _Building(due, gone)
        built = _built(self._layer, numbers, building)
        self._shapes[key] = None if built is None else shapes_of(built)
        self._orders[key] = building.made
        self._last = key, built

    def built(self, numbers: Mapping[str, int]) -> nn.Module:
        """The network itself, for the caller alone, of numbers that can be built."""
        last, self._last = self._last, None
        made = last[1] if last is not None and last[0] == frozenset(numbers.items()) else None
        made = made or _built(self._layer, numbers, _Building())
        assert made is not None
        return made


class _Other(Exception):
    """A network is built with other shapes than it has to have."""


class _Building(TorchFunctionMode):
    """Makes tensors on the meta device, as ``with torch.device("meta")`` does at twice the price, and fills none.

    ``made`` has the shapes of all that were made of numbers, in their order; where ``due`` has another shape, or where
    one to be filled is ``gone``, the building ends.
    """

    def __init__(
        self, due: Sequence[tuple[int, ...]] = (), gone: frozenset[tuple[int, ...]] = frozenset()
    ) -> None:
        super().__init__()
        self.made: list[tuple[int, ...]] = []
        self._due, self._gone = due, gone

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FILLING:
            filled: Tensor = args[0] if args else (kwargs or {})["tensor"]
            if filled.is_meta:
                return filled
        if func not in _MAKING:
            return func(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is None:
            kwargs["device"] = _META
        result: Tensor = func(*args, **kwargs)
        place, shape = len(self.made), tuple(result.shape)
        self.made.append(shape)
        if place < len(self._due) and self._due[place] != shape:
            raise _Other
        if func is torch.empty and shape in self._gone:
            raise _Other
        return result


_FILLING = frozenset((
    Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_, nn.init.uniform_, nn.init.normal_,
    nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.constant_,
))  # fmt: skip
_MAKING = frozenset((
    torch.empty, torch.empty_strided, torch.zeros, torch.ones, torch.full, torch.eye, torch.rand, torch.randn,
    torch.randint, torch.randperm, torch.arange, torch.linspace, torch.logspace, torch.tensor, torch.as_tensor,
    torch.hann_window,
))  # fmt: skip
_META = torch.device("meta")


def _built(layer: nn.Module, numbers: Mapping[str, int], building: _Building) -> nn.Module | None:
    """What the class of ``layer`` makes of its config with ``numbers``, without memory."""
    holder = nn.Module()
    vars(holder)["config"] = deep_copy(layer.config)
    for name, value in numbers.items():
        put_config(holder, name, value)
    try:
        with warnings.catch_warnings(), building:
            warnings.simplefilter("ignore")
            built: nn.Module = type(layer)(holder.config)
            return built
    except Exception:  # whatever the constructor says to numbers that do not go together
        return None
