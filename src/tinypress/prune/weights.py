"""Which parameters of a network are weights that may be pruned, and which are left alone and why.

Weights are the matrices and kernels of linear, convolutional, recurrent and attention layers. Biases,
normalization and, unless it is named, an embedding are not touched.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from tinypress.errors import InputError, ModelError
from tinypress.facts import Note
from tinypress.prune.blocks import is_known

_ONE_WEIGHT = (nn.Linear, nn.Bilinear, _ConvNd)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)
_NORM = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def prunable_weights(
    call: str, model: nn.Module, layers: Sequence[str] | None
) -> tuple[dict[str, nn.Parameter], tuple[Note, ...]]:
    """The weights to prune by parameter name, in parameter order, and a note for each matrix left alone.

    A parameter that several layers share appears once, under the first of its names.

    Raises:
        InputError: a name in ``layers`` is not that of a module of the network.
        ModelError: there is nothing to prune, or a weight is of a kind that cannot be.
    """
    if layers is None:
        chosen = {id(p) for module in model.modules() for _, p in _weights_of(module)}
        weights = {name: p for name, p in model.named_parameters() if id(p) in chosen}
        notes = tuple(_left_alone(model, chosen))
    else:
        chosen = {id(p) for name in _checked_names(call, model, layers) for p in _named(call, model, name)}
        weights = {name: p for name, p in model.named_parameters() if id(p) in chosen}
        notes = ()
    if not weights:
        raise ModelError(
            call,
            "the network has no layer with weights to prune",
            "Give one with a Linear, convolutional, recurrent or attention layer",
        )
    for name, parameter in weights.items():
        require_readable(call, name, parameter)
    return weights, notes


def require_readable(call: str, name: str, parameter: nn.Parameter) -> None:
    """Raise ModelError where the values of ``parameter`` are not there or not of a known kind."""
    if is_lazy(parameter) or parameter.is_meta:
        raise ModelError(
            call,
            f"the parameter {name!r} has no values yet",
            "Load the weights or run one forward pass first",
        )
    if not is_known(parameter.dtype):
        raise ModelError(
            call, f"the parameter {name!r} is {parameter.dtype}", "Convert it to float32, or to 16 or 64 bits"
        )


def layer_of(parameter_name: str) -> str:
    """The name that facts about a parameter carry: its layer's where it is that layer's only weight."""
    layer, _, leaf = parameter_name.rpartition(".")
    return layer if leaf == "weight" else parameter_name


def nearest(name: str, names: Sequence[str]) -> str:
    """What to do about the unknown ``name``: the name that was probably meant, or all there are."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(repr(known) for known in names[:8])
    return f"Choose from {shown}" + (", ..." if len(names) > 8 else "")


def _weights_of(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of ``module`` itself that are pruned without being asked for."""
    for name, parameter in module.named_parameters(recurse=False):
        if (
            (isinstance(module, _ONE_WEIGHT) and name == "weight")
            or (isinstance(module, _RECURRENT) and name.startswith("weight"))
            or (isinstance(module, nn.MultiheadAttention) and name.endswith("proj_weight"))
        ):
            yield name, parameter


def _matrices_of(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """All of the module's own parameters that are matrices or kernels, of whatever kind it is."""
    if isinstance(module, _NORM):
        return
    for name, parameter in module.named_parameters(recurse=False):
        wide = not is_lazy(parameter) and parameter.ndim > 1 and parameter.is_floating_point()
        if wide and not name.startswith("bias"):
            yield name, parameter


def _left_alone(model: nn.Module, chosen: set[int]) -> Iterator[Note]:
    for path, module in model.named_modules():
        for name, parameter in _matrices_of(module):
            if id(parameter) in chosen:
                continue
            if isinstance(module, _EMBEDDING):
                why = "embeddings are pruned only when they are named in layers"
            else:
                why = f"a {type(module).__name__} is pruned only when it is named in layers"
            shape = "×".join(str(size) for size in parameter.shape)
            yield Note("TP111", "note", path, f"{name} [{shape}] was not pruned: {why}")


def _checked_names(call: str, model: nn.Module, layers: Sequence[str]) -> Sequence[str]:
    if isinstance(layers, str):
        raise InputError(call, f"layers is the text {layers!r}", f"Give a list of names: [{layers!r}]")
    if not layers:
        raise InputError(call, "layers is empty", "Name at least one layer, or leave layers out")
    names = [name for name, _ in model.named_modules()]
    for name in layers:
        if name not in names:
            raise InputError(call, f"there is no layer {name!r}", nearest(str(name), names[1:] or names))
    return layers


def _named(call: str, model: nn.Module, name: str) -> list[nn.Parameter]:
    module = model.get_submodule(name)
    weights = [p for _, p in _weights_of(module)] or [p for _, p in _matrices_of(module)]
    if not weights:
        raise ModelError(
            call,
            f"the layer {name!r} ({type(module).__name__}) has no weights of its own to prune",
            "Name layers that hold weights; biases and normalization are never pruned",
        )
    return weights
