"""Reads the facts of an archive off the file; MACs are counted on the network that it rebuilds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tinypress.archive import archive_layers, read_archive
from tinypress.measure.artifact import ArtifactFacts
from tinypress.measure.weights import histogram
from tinypress.receipt import Layer


def read_archived(path: Path, stock: nn.Module, example_inputs: tuple[Tensor, ...]) -> ArtifactFacts:
    """Facts of the archive at ``path``. PyTorch computes in float whatever the weights are stored as.

    Raises:
        ArtifactError: the file is damaged or does not fit ``stock``.
    """
    model = read_archive(path, stock).model.eval()
    parameters = dict(model.named_parameters())
    stored = [tensor for tensor in archive_layers(path) if tensor.name in parameters]
    layers = []
    for tensor in stored:
        if not tensor.name.endswith("weight") or len(tensor.shape) < 2:
            continue
        of_layer = [other for other in stored if other.layer == tensor.layer]
        weight = parameters[tensor.name].detach()
        layers.append(
            Layer(
                name=tensor.layer or tensor.name,
                kind=tensor.kind,
                weight_shape=tuple(weight.shape),
                parameters=sum(parameters[other.name].numel() for other in of_layer),
                nonzero_parameters=sum(other.nonzero for other in of_layer),
                bits=tensor.bits,
                bytes=sum(other.encoded_bytes for other in of_layer),
                macs=None,
                histogram=histogram(weight.float()),
            )
        )
    return ArtifactFacts(
        layers=tuple(layers),
        parameters=sum(parameters[tensor.name].numel() for tensor in stored),
        nonzero_parameters=sum(tensor.nonzero for tensor in stored),
        macs_int8=0,
        macs_float=_macs(model, example_inputs),
        weight_bytes=sum(4 * parameters[tensor.name].numel() for tensor in stored),
        activation_bytes=_activation_bytes(model, example_inputs),
        float_layers=(),
    )


def _macs(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(*(x[:1] for x in example_inputs))
    return int(counter.get_total_flops()) // 2  # it counts a multiplication and an addition apart


def _activation_bytes(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> int:
    """Bytes that the layers with weights read for one sample."""
    read = 0

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal read
        read += sum(x.numel() * x.element_size() for x in inputs if isinstance(x, Tensor))

    hooks = [
        layer.register_forward_pre_hook(count)
        for layer in model.modules()
        if any(parameter.dim() > 1 for parameter in layer.parameters(recurse=False))
    ]
    try:
        with torch.no_grad():
            model(*(x[:1] for x in example_inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return read
