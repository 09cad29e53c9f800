"""Which layers of a network can leave whole: those whose output is their input and something added to it.

The network runs once on its example. A layer counts where a path of autograd's graph leads from what it returned to
what it was given through an addition and through no product with a weight, and where another path holds such a
product: x + f(x), whatever norms and activations stand around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.graph import forward_eval, tensors_of

Argument = int | str
"""An argument of ``forward`` by place or by name."""

# Operations of autograd that multiply with weights or mix positions, by the beginning of their names.
_PRODUCTS = (
    "Addmm", "Addmv", "Mm", "Mv", "Bmm", "Baddbmm", "Dot", "Convolution", "MkldnnConvolution", "Linear", "Embedding",
    "ScaledDotProduct", "Native", "Lstm", "Gru", "Cudnn", "Mkldnn",
)  # fmt: skip
_NORMS = ("NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm", "CudnnBatchNorm")
_SUMS = ("AddBackward", "SubBackward", "AddcmulBackward", "LerpBackward")


@dataclass(frozen=True)
class Residual:
    """A layer that can leave, and the argument that is then passed on in place of its first output."""

    path: str
    given: Argument


@dataclass
class _Call:
    times: int = 0
    entries: tuple[tuple[Argument, Any, torch.Size], ...] = ()
    returned: tuple[Any, torch.Size] | None = None


def residual_layers(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> tuple[Residual, ...]:
    """The layers of ``model`` of the form x + f(x) that run once, in order of execution.

    Of layers within layers it is the inner ones where these are the equal entries of a list, as in a stage of
    blocks, and else the outer one.

    Args:
        model: the network; not changed, but run with gradients.
        example_inputs: one tensor [B, ...] per argument of ``forward``.

    Raises:
        ModelError: the network does not run with gradients.
    """
    calls: dict[str, _Call] = {}
    paths = _paths(model)
    handles = [
        handle
        for path, layer in paths.items()
        for call in [calls.setdefault(path, _Call())]
        for handle in (
            layer.register_forward_pre_hook(_enters(call), with_kwargs=True),
            layer.register_forward_hook(_leaves(call)),
        )
    ]
    order: list[str] = []
    for path, layer in paths.items():
        handles.append(layer.register_forward_hook(lambda *_, path=path: order.append(path)))
    training = [(module, module.training) for module in model.modules()]
    try:
        with torch.enable_grad():
            model.eval()(*example_inputs)
    except Exception as error:  # whatever the user's forward() raises
        raise ModelError(
            f"residual_layers({type(model).__name__})",
            f"the network does not run with gradients ({type(error).__name__}: {error})",
            "Write nothing into a module's input in place",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in training:
            module.training = flag
    found = {path: given for path, call in calls.items() if (given := _passes_on(call)) is not None}
    wanted = _outermost(model, list(found))
    return tuple(Residual(path, found[path]) for path in dict.fromkeys(order) if path in wanted)


def _paths(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that hold others and parameters, and stand in one place only."""
    places: dict[int, int] = {}
    for _, layer in model.named_modules(remove_duplicate=False):
        places[id(layer)] = places.get(id(layer), 0) + 1
    return {
        path: layer
        for path, layer in model.named_modules()
        if path
        and places[id(layer)] == 1
        and not isinstance(layer, nn.ModuleList | nn.ModuleDict)
        and (next(layer.children(), None) is not None or not type(layer).__module__.startswith("torch."))
        and next(layer.parameters(), None) is not None
    }


def _enters(call: _Call) -> Any:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call.times += 1
        entries: list[tuple[Argument, Any, torch.Size]] = []

        def marked(name: Argument, value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            source = value if value.requires_grad else value.detach().requires_grad_()
            copied = source.clone()
            entries.append((name, copied.grad_fn, copied.shape))
            return copied

        args = tuple(marked(place, value) for place, value in enumerate(args))
        kwargs = {name: marked(name, value) for name, value in kwargs.items()}
        call.entries = tuple(entries)
        return args, kwargs

    return hook


def _leaves(call: _Call) -> Any:
    def hook(layer: nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        call.returned = (first.grad_fn, first.shape) if isinstance(first, Tensor) else None

    return hook


def _passes_on(call: _Call) -> Argument | None:
    """The argument that the layer adds something to and returns; None where it does not."""
    if call.times != 1 or call.returned is None or call.returned[0] is None:
        return None
    last, shape = call.returned
    ends = {node: name for name, node, size in call.entries if size == shape}
    fences = {node for _, node, _ in call.entries}
    seen: set[tuple[Any, bool]] = set()
    waiting = [(last, False)]
    products = False
    reached: Argument | None = None
    while waiting:
        node, added = waiting.pop()
        if node is None or (node, added) in seen:
            continue
        seen.add((node, added))
        if node in fences:
            if added and node in ends and reached is None:
                reached = ends[node]
            continue
        name = str(node.name())
        if name.startswith(_PRODUCTS) and not name.startswith(_NORMS):
            products = True
            continue
        sums = added or name.startswith(_SUMS)
        waiting += [(source, sums) for source, _ in node.next_functions]
    return reached if products else None


def _outermost(model: nn.Module, found: Sequence[str]) -> set[str]:
    wanted: set[str] = set()

    def within(path: str) -> list[str]:
        return [other for other in found if other.startswith(f"{path}.")]

    def visit(path: str) -> None:
        inner = within(path)
        if any(_of_equals(model, other, path) for other in inner):
            for other in inner:
                if not any(other.startswith(f"{between}.") for between in inner):
                    visit(other)
        else:
            wanted.add(path)

    for path in found:
        if not any(path.startswith(f"{outer}.") for outer in found):
            visit(path)
    return wanted


def _of_equals(model: nn.Module, path: str, within: str) -> bool:
    """True for an entry of a list or sequence, ``within`` or inside it, whose entries are of one class; and where
    ``within`` is itself no more than a sequence."""
    parent_path = path.rpartition(".")[0]
    parent = model.get_submodule(parent_path)
    inside = f"{parent_path}.".startswith(f"{within}.")
    if type(parent) is nn.Sequential and parent_path == within:
        return True
    return (
        inside and isinstance(parent, nn.ModuleList | nn.Sequential) and len({type(x) for x in parent}) == 1
    )


@contextmanager
def _skipped(model: nn.Module, layers: Mapping[str, Argument]) -> Iterator[None]:
    def passing(given: Argument) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            value = args[given] if isinstance(given, int) else kwargs[given]
            return type(output)((value, *output[1:])) if isinstance(output, tuple | list) else value

        return hook

    handles = [
        model.get_submodule(path).register_forward_hook(passing(given), with_kwargs=True)
        for path, given in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def outputs_without(
    model: nn.Module, layers: Sequence[Residual], example_inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """What the whole network returns when each of ``layers`` passes on its input in place of its first output."""
    with _skipped(model, {layer.path: layer.given for layer in layers}):
        return tensors_of(forward_eval(model, example_inputs))
