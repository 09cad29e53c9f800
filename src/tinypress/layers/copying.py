"""Deep copies of networks. ``copy.deepcopy`` takes every object apart into what pickle would write; here a module or a
config is the dictionary that it is, and only what can change is copied."""

from __future__ import annotations

import copy
import copyreg
import types
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.errors import ModelError

Memo = dict[int, Any]
"""By identity of what was copied its copy, as ``copy.deepcopy`` keeps it."""

_UNCHANGING = frozenset((
    type(None), bool, int, float, complex, str, bytes, type, types.FunctionType, types.BuiltinFunctionType,
    torch.dtype, torch.device, torch.Size,
))  # fmt: skip
_MAPPINGS = frozenset((dict, OrderedDict))
_NUMBERS = frozenset((
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
))  # fmt: skip
# The module's own adds what modules lack that older versions of torch wrote.
_NO_OWN_SETSTATE = (None, nn.Module.__setstate__)


def copy_model(
    model: nn.Module, *, share: bool = False, instead: Mapping[Tensor, Tensor] | None = None
) -> nn.Module:
    """A deep copy that shares no tensor with ``model``.

    Args:
        share: let it share the parameters all the same, for a copy that only reads them.
        instead: tensors that take the place of some parameters or buffers, which are then not copied.

    Raises:
        ModelError: the network holds something that cannot be copied, such as a weight that hangs on a graph.
    """
    try:
        memo: Memo = {id(p): p for p in model.parameters()} if share else {}
        memo.update({id(old): new for old, new in (instead or {}).items()})
        copied: nn.Module = _copied(model, memo)
        return copied
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"copying {type(model).__name__}",
            f"the network cannot be copied ({str(error).splitlines()[0]})",
            "Keep only leaf tensors and plain values as attributes of its modules",
        ) from error


def deep_copy(value: Any) -> Any:
    """What ``copy.deepcopy`` makes of a config, sooner."""
    return _copied(value, {})


def _copied(value: Any, memo: Memo) -> Any:
    kind = type(value)
    if kind in _UNCHANGING:
        return value
    made = memo.get(id(value))
    if made is not None:
        return made
    if kind in _MAPPINGS and not getattr(value, "__dict__", None):
        made = memo[id(value)] = kind()
        for key, each in value.items():
            made[key if type(key) in _UNCHANGING else copy.deepcopy(key, memo)] = (
                each if type(each) in _UNCHANGING else _copied(each, memo)
            )
    elif kind is list:
        made = memo[id(value)] = []
        made.extend(_copied(each, memo) for each in value)
    elif kind is set and not value:
        made = memo[id(value)] = set()
    elif kind is tuple and all(type(each) in _UNCHANGING for each in value):
        made = value
    elif _is_plain(kind):  # type: ignore[arg-type]
        made = memo[id(value)] = object.__new__(kind)
        state = _state(value, memo)
        if getattr(kind, "__setstate__", None) in _NO_OWN_SETSTATE:
            made.__dict__.update(state)
        else:
            made.__setstate__(state)
    elif kind is Tensor and _is_all_of_its_storage(value):
        made = memo[id(value)] = _cloned(value, memo)
    else:
        made = copy.deepcopy(value, memo)
    return made


def _is_all_of_its_storage(value: Tensor) -> bool:
    """Whether a tensor is nothing but numbers that lie one after the other, none of which is left out."""
    plain = value.dtype in _NUMBERS and value.layout == torch.strided
    return (
        plain
        and not (value.requires_grad or value.grad is not None or vars(value))
        and value.is_contiguous()
        and not (value.is_meta or value.is_conj() or value.is_neg())
        and value.untyped_storage().nbytes() == value.numel() * value.element_size()
    )


def _cloned(value: Tensor, memo: Memo) -> Tensor:
    """A copy at a tenth of the price of ``copy.deepcopy``. Storages are noted where that notes them, so that views of
    one storage stay views of one."""
    storages = memo.setdefault("torch", {})  # type: ignore[call-overload]
    key = value.untyped_storage()._cdata
    if key in storages:
        return copy.deepcopy(value, memo)
    made = value.clone()
    storages[key] = made.untyped_storage()
    return made


def _state(value: Any, memo: Memo) -> dict[str, Any]:
    """The attributes of an object, copied; most of a module's are dictionaries of hooks, and empty."""
    state = {}
    for name, each in vars(value).items():
        kind = type(each)
        if kind in _UNCHANGING:
            state[name] = each
        elif kind in _MAPPINGS and not each and id(each) not in memo and not getattr(each, "__dict__", None):
            state[name] = memo[id(each)] = kind()
        else:
            state[name] = _copied(each, memo)
    state.pop("_compiled_call_impl", None)  # as nn.Module.__getstate__ leaves it out
    return state


class _Plain:
    """An object that is a dictionary and nothing else."""


@lru_cache(1024)
def _is_plain(kind: type) -> bool:
    """True for classes written in Python that say nothing of their own about how they are copied."""
    like = nn.Module if issubclass(kind, nn.Module) else _Plain
    special = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__deepcopy__")
    return (
        kind.__basicsize__ == _Plain.__basicsize__
        and kind not in copyreg.dispatch_table
        and not any("__slots__" in vars(each) for each in kind.__mro__[:-1])
        and all(
            getattr(kind, name, None) is getattr(like, name, None)
            for name in special
            if not (name == "__setstate__" and like is nn.Module)
        )
    )
