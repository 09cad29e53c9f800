"""A network that computes, while it is trained, what its quantized file will compute.

It goes through the traced graph of the network with batch norm folded, with fake-quantized weights, and rounds to 8
bits those values of the graph that the shipped file holds as integers. Batch norm is folded as in Jacob et al. 2018
(arXiv:1712.05877, §3.2, eq. 14): weights are scaled by the running variance before they are quantized, and the running
moments follow those of the batches until they are frozen. Unlike there (fig. C.8) the moments are those of the product
with the quantized weights, taken back to before the folding: at few bits rounding moves a channel's mean, and
statistics that do not see it leave it in. It also saves the second product.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.facts import QuantizedValue, QuantPlan
from tinypress.graph import Node, Traced
from tinypress.graph.run import compute, execute, on_device
from tinypress.quantize.fake_value import FakeValue
from tinypress.quantize.fake_weight import FakeWeight
from tinypress.quantize.fold import fold_batch_norms, folded_tensors
from tinypress.quantize.folded_norm import FoldedNorm
from tinypress.quantize.layer import dequantize_layer_weights
from tinypress.train.hooks import Hook, MakeHook


class Simulated(nn.Module):
    """``model`` in training as its quantized self.

    Args:
        model: the network before folding; its parameters are what is trained.
        traced: the graph of the network after folding.
        pairs: each layer with the batch norm that is folded into it.
        weights: the fake-quantized weights.
        values: the fake-quantized values.
    """

    def __init__(
        self,
        model: nn.Module,
        traced: Traced,
        pairs: Sequence[tuple[str, str]],
        weights: Sequence[FakeWeight],
        values: Sequence[FakeValue],
    ) -> None:
        super().__init__()
        self.model, self.traced, self.pairs = model, traced, tuple(pairs)
        self.weights, self.values = nn.ModuleList(weights), nn.ModuleList(values)
        self.register_buffer("frozen", torch.tensor(False))

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output [B, ...], as ``model`` has it."""
        tensors = self._tensors()
        # a copy, because an operation may write into what it is given
        given = [x.clone() for x in inputs]
        observing = self.training and not bool(self.frozen)
        norms = self._norms(tensors) if observing else {}
        fakes = {fake.node: fake for fake in self.values if isinstance(fake, FakeValue)}

        def call(node: Node, before: Mapping[str, Any]) -> Any:
            node = on_device(node, given[0].device)
            if node.kind == "call":
                value = compute(node, before)
                for folded in (norms[name] for name in node.inputs if name in norms):
                    folded.observe(value.detach())
            else:
                value = before[node.name] if node.constant is None else node.constant
            return fakes[node.name](value, observing) if node.name in fakes else value

        output: Tensor = execute(self.traced, given, tensors, call)[self.traced.outputs[0]]
        return output

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the folded network, its weights as their integers will be."""
        tensors: dict[str, Tensor] = {
            **dict(self.model.named_parameters(remove_duplicate=False)),
            **dict(self.model.named_buffers(remove_duplicate=False)),
        }
        tensors |= self._folded()
        for fake in self.weights:
            assert isinstance(fake, FakeWeight)
            real = fake(tensors[fake.names[0]])
            tensors.update(dict.fromkeys(fake.names, real))
        return tensors

    def _folded(self) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for layer, norm in self.pairs:
            weight, bias = folded_tensors(self.model.get_submodule(layer), self.model.get_submodule(norm))
            made |= {f"{layer}.weight": weight, f"{layer}.bias": bias}
        return made

    def _norms(self, tensors: Mapping[str, Tensor]) -> dict[str, FoldedNorm]:
        """Each batch norm by the node that holds its layer's weight."""
        found = {}
        for layer, norm in self.pairs:
            own, bias = self.model.get_submodule(norm), tensors[f"{layer}.bias"].detach()
            found[f"{layer}.weight"] = FoldedNorm(own, self.model.get_submodule(layer).bias, bias)
        return {node.name: found[node.tensor] for node in self.traced if node.tensor in found}


def freezing(share: float) -> MakeHook:
    """The hook that freezes the statistics of a ``Simulated`` after this share of the steps."""

    def make(model: nn.Module, total: int) -> Hook:
        frozen = model.frozen
        assert isinstance(frozen, Tensor)
        last = math.ceil(share * total)
        if last == 0:
            frozen.fill_(True)

        def after(step: int) -> None:
            if step >= last:
                frozen.fill_(True)

        return Hook(after=after)

    return make


def keeping_zeros(names: Collection[str]) -> MakeHook:
    """The hook that sets what is zero in the named parameters when training begins to zero after every step."""

    def make(model: nn.Module, total: int) -> Hook:
        known = dict(model.named_parameters(remove_duplicate=False))
        zeros = [(known[name], known[name].detach() == 0) for name in sorted(names)]

        def after(step: int) -> None:
            for parameter, zero in zeros:
                parameter.detach().masked_fill_(zero, 0.0)

        return Hook(after=after)

    return make


def as_shipped(simulated: Simulated) -> tuple[nn.Module, QuantPlan]:
    """The folded network with the weights that its integers stand for, and the plan of them."""
    network = fold_batch_norms(simulated.model, simulated.pairs)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    weights = {}
    for fake in simulated.weights:
        assert isinstance(fake, FakeWeight)
        parameter = parameters[fake.names[0]]
        packed = fake.packed(parameter)
        parameter.data = dequantize_layer_weights(packed).to(parameter)
        weights.update(dict.fromkeys(fake.names, packed))
    values: dict[str, QuantizedValue] = {}
    for fake in simulated.values:
        assert isinstance(fake, FakeValue)
        values.update(dict.fromkeys(fake.names, fake.decided()))
    return network, QuantPlan({name: weights[name] for name in sorted(weights)}, values)
