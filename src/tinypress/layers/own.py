"""Widths that a module of the user's own keeps as numbers, in itself or in the ``config`` it was built from.

A name is that of an attribute, ``config.NAME`` for a number of the config, or ``config.NAME.2`` for one in a list.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn

from tinypress.errors import ModelError

_OWN = "_tinypress_widths"


def set_width(layer: nn.Module, name: str, value: int) -> None:
    """Set such a number, and note that it is a width.

    Raises:
        ModelError: the module has no whole number of that name.
    """
    name = str(name)
    found = None if type(layer).__module__.startswith("torch.") else _place(layer, name)
    if found is None:
        raise ModelError(
            f"set_width({type(layer).__name__}, {name[:80]!r}, {value})",
            "the module keeps no whole number under that name",
            "Rebuild from the stock network that was pruned",
        )
    holder, key = found
    holder[key] = value
    vars(layer)[_OWN] = tuple(sorted({*vars(layer).get(_OWN, ()), name}))


def own_widths(layer: nn.Module) -> dict[str, int]:
    """The widths that ``set_width`` has set."""
    return {name: width_of(layer, name) for name in vars(layer).get(_OWN, ())}


def width_of(layer: nn.Module, name: str) -> int:
    """The number of that name, which has to be there."""
    found = _place(layer, name)
    assert found is not None
    holder, key = found
    value: int = holder[key]
    return value


def config_numbers(layer: nn.Module) -> dict[str, int]:
    """The whole numbers in the config of ``layer``, one as Hugging Face's models have, by name."""
    config = vars(layer).get("config")
    if not _is_config(config):
        return {}
    return {f"config.{name}": value for name, value in _numbers(vars(config))}


def own_config(model: nn.Module, path: str) -> None:
    """Give the network at ``path`` a config of its own, in place, where a module outside of it has the same one."""
    network = model.get_submodule(path)
    config = vars(network).get("config")
    inside = set(network.modules())
    if _is_config(config) and any(
        vars(m).get("config") is config for m in model.modules() if m not in inside
    ):
        own = copy.deepcopy(config)
        for module in inside:
            if vars(module).get("config") is config:
                vars(module)["config"] = own


def put_config(layer: nn.Module, name: str, value: int) -> None:
    """Set a number of ``config_numbers`` without noting it."""
    found = _place(layer, name)
    assert found is not None
    holder, key = found
    holder[key] = value


def _numbers(values: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if type(value) is int:
            yield name, value
        elif isinstance(value, list):
            yield from ((f"{name}.{i}", each) for i, each in enumerate(value) if type(each) is int)


def _is_config(config: object) -> bool:
    return hasattr(type(config), "model_type") and callable(getattr(type(config), "to_dict", None))


def _place(layer: nn.Module, name: object) -> tuple[Any, Any] | None:
    """What holds the number, and under which key; None where there is none."""
    if not isinstance(name, str):
        return None
    holder: Any = vars(layer)
    key: Any = name
    if name.startswith("config."):
        config = holder.get("config")
        if not _is_config(config):
            return None
        holder, (key, *rest) = vars(config), name.split(".")[1:]
        if rest:
            if len(rest) > 1 or not rest[0].isdecimal() or len(rest[0]) > 4:
                return None
            holder, key = holder.get(key), int(rest[0])
            return (holder, key) if isinstance(holder, list) and _is_int_at(holder, key) else None
    return None if key.startswith("_") or type(holder.get(key)) is not int else (holder, key)


def _is_int_at(values: list[Any], at: int) -> bool:
    return at < len(values) and type(values[at]) is int
