"""Small chain networks as plain data, so that they can be drawn, printed and sent to another process.

A layer is ``{"kind": "Linear", "options": {...}, "state": {name: tensor}}``; a network is ``{"layers": [layer
with a "name", ...], "training": bool}``, run one after the other. A layer of the kind ``Sequential`` holds ``layers``
of its own. ``"shared": {later: first}`` names parameters of the network that are one tensor, ``"own"`` are those of
the network itself. Anything else stands for itself, so that a check can also hand over what is no network.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

Plain = Any  # None, bool, int, float, str, Tensor, and lists and dicts of them

_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_OPTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.BatchNorm1d: ("num_features", "eps", "momentum", "affine"),
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine"),
    nn.LayerNorm: ("normalized_shape",),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    nn.LSTM: ("input_size", "hidden_size"),
    nn.ReLU: (),
    nn.Tanh: (),
    nn.Identity: (),
    nn.Flatten: ("start_dim",),
    nn.Dropout: ("p",),
    nn.MaxPool1d: ("kernel_size",),
    nn.MaxPool2d: ("kernel_size",),
    nn.AdaptiveAvgPool1d: ("output_size",),
    nn.AdaptiveAvgPool2d: ("output_size",),
}
_KINDS = {kind.__name__: kind for kind in _OPTIONS}
_WITH_BIAS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def layer_data(layer: object) -> Plain:
    """``layer`` as plain data; of a kind that is not known only its name and tensors."""
    if not isinstance(layer, nn.Module):
        return {"kind": type(layer).__name__, "options": {}, "state": {}}
    options = {name: _plain(getattr(layer, name)) for name in _OPTIONS.get(type(layer), ())}
    if isinstance(layer, _WITH_BIAS):
        options["bias"] = layer.bias is not None
    state = {name: value.detach().clone() for name, value in layer.state_dict().items()}
    if isinstance(layer, nn.Sequential):
        return {"kind": "Sequential", "options": {}, "state": state, "layers": network_data(layer)["layers"]}
    return {"kind": type(layer).__name__, "options": options, "state": state}


def network_data(network: object) -> Plain:
    """The children of ``network`` as plain data, in their order."""
    if not isinstance(network, nn.Module):
        return {"layers": [], "training": False}
    layers = [{"name": name, **layer_data(child)} for name, child in network.named_children()]
    return {"layers": layers, "training": network.training}


def layer_from(data: Plain) -> Any:
    """The layer that ``data`` describes, or ``data`` itself where it is none."""
    if not isinstance(data, dict) or "kind" not in data:
        return data
    if data["kind"] == "Sequential":
        return nn.Sequential(OrderedDict((each["name"], layer_from(each)) for each in data["layers"]))
    layer = _KINDS[data["kind"]](**{name: _tuple(value) for name, value in data["options"].items()})
    floats = [value.dtype for value in data["state"].values() if value.is_floating_point()]
    if floats:
        layer.to(floats[0])
    layer.load_state_dict({name: value.clone() for name, value in data["state"].items()})
    return layer


def network_from(data: Plain) -> Any:
    """The network that ``data`` describes, or ``data`` itself where it is none."""
    if isinstance(data, dict) and "kind" in data:
        return layer_from(data)
    if not isinstance(data, dict) or "layers" not in data:
        return data
    network = nn.Sequential(OrderedDict((layer["name"], layer_from(layer)) for layer in data["layers"]))
    for name, value in data.get("own", {}).items():
        network.register_parameter(name, nn.Parameter(value.clone()))
    for layer in data["layers"]:
        for name, parameter in network.get_submodule(layer["name"]).named_parameters():
            parameter.requires_grad_(name not in layer.get("frozen", ()))
    for later, first in data.get("shared", {}).items():
        layer, _, name = later.rpartition(".")
        setattr(network.get_submodule(layer), name, network.get_parameter(first))
    return network.train(data.get("training", False))


def linear(weight: Tensor, bias: Tensor | None = None, name: str | None = None) -> Plain:
    """A Linear layer with these weights [out, in] as plain data."""
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    options = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    layer = {"kind": "Linear", "options": options, "state": state}
    return layer if name is None else {"name": name, **layer}


def _plain(value: Any) -> Plain:
    return list(value) if isinstance(value, tuple) else value


def _tuple(value: Plain) -> Any:
    return tuple(value) if isinstance(value, list) else value


def random_network(layers: list[tuple[str, nn.Module]], seed: int, *, training: bool = False) -> Plain:
    """``layers`` as one network with weights, biases and batch norms drawn from ``seed``, as plain data."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in layers:
        for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                value.data.copy_(drawn.abs() + 0.5 if name == "running_var" else drawn)
    return network_data(nn.Sequential(OrderedDict(layers)).train(training))
