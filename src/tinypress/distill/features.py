"""What named layers of a network give out, seen through hooks that are gone afterwards."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from tinypress.errors import InputError, ModelError


@contextlib.contextmanager
def captured(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the layers at ``paths`` during the forward passes inside the block, by path.

    Of a layer that returns a tuple, such as attention, the first tensor counts.

    Raises:
        InputError: there is no such layer.
        ModelError: a layer runs more than once in a forward pass, or gives out no tensor.
    """
    if not paths:
        yield {}
        return
    known = dict(model.named_modules())
    for path in paths:
        if path not in known or not path:
            close = difflib.get_close_matches(path, [name for name in known if name], n=1, cutoff=0.0)
            remedy = f"Did you mean {close[0]!r}?" if close else "Name a layer of named_modules()"
            raise InputError(f"captured({type(model).__name__})", f"there is no layer {path!r}", remedy)
    found: dict[str, Tensor] = {}
    removers = [known[path].register_forward_hook(_catch(path, found)) for path in paths]
    root = model.register_forward_pre_hook(lambda module, inputs: found.clear())
    try:
        yield found
    finally:
        for remover in (*removers, root):
            remover.remove()


def require_captured(call: str, found: dict[str, Tensor], paths: Sequence[str]) -> None:
    """Raise ModelError for a layer that did not run in the forward pass."""
    for path in paths:
        if path not in found:
            raise ModelError(
                call,
                f"the layer {path!r} did not run in the forward pass",
                "Name a layer whose own forward() is called",
            )


def _catch(path: str, found: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        call = f"captured({path!r})"
        if not isinstance(first, Tensor):
            raise ModelError(call, f"the layer gives out a {type(first).__name__}", "Name one with a tensor")
        if path in found:
            raise ModelError(
                call, "the layer runs more than once in a forward pass", "Name a layer that runs once"
            )
        found[path] = first

    return hook
