"""Block reconstruction: the weights of a block learn together to make, as integers, what the float block made.

Rounding is judged by what a block of layers makes (Li et al. 2021, "BRECQ", arXiv:2102.05426, equation 10, without the
Fisher weights), block after block, each on inputs x^ that come from the quantized blocks before it:

    min || f(x; W, b) - f(x^; W^, b^) ||^2        x from the float network

Their rounding is AdaRound's; here latent weights, steps and biases are learnt, through the straight-through estimator
(LSQ: Esser et al. 2020, arXiv:1902.08153, equations 1 to 3), so that a weight may move by more than one integer. No
label is looked at. Learnt biases and steps also put back the means and spreads that rounding moved.

A weight that is exactly zero stays so. A block that is no better in the end than rounded under the least squared error
keeps that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinypress.facts import Change, Note, QuantizedWeight
from tinypress.quantize.block_rows import Rows, find_blocks, rows_after, rows_fed, rows_made
from tinypress.quantize.blocks import blocks_of
from tinypress.quantize.fake_weight import FakeWeight
from tinypress.quantize.layer import dequantize_layer_weights
from tinypress.quantize.learn_block import Latents, Reconstruction, learn_block
from tinypress.task import Split
from tinypress.train.progress import Progress, silent


@dataclass(frozen=True)
class Reconstructed:
    """Integers by name of the layer, what changed in each block, and what could not be learnt."""

    weights: Mapping[str, QuantizedWeight]
    changes: tuple[Change, ...]
    notes: tuple[Note, ...]


def reconstruct_blocks(
    call: str,
    network: nn.Module,
    original: nn.Module,
    fakes: Mapping[str, FakeWeight],
    samples: Split,
    how: Reconstruction,
    *,
    pruned: Collection[str] = (),
    progress: Progress = silent,
) -> Reconstructed:
    """Learn the weights and biases of ``network``, and write what the integers stand for into it.

    What one block is fed and makes on all the samples is held in memory, on the device of the network.

    Args:
        network: in evaluation mode; the float weights, but for layers that are quantized already.
        original: the same network as floats, on the same device.
        fakes: for each layer to learn, by name, the steps of its weight, which no other layer owns.
        pruned: parameters whose zeros must stay. Those of weights do anyway.

    Raises:
        DataError: a block is fed or makes NaN or infinity, names it.
        ModelError: the error of a block became NaN or infinite while it learnt, names it.
    """
    blocks, reasons = find_blocks(network, blocks_of(network, list(fakes)), samples)
    notes = []
    opened = {path: why for path, why in reasons.items() if path not in fakes}
    if opened:
        layers = [name for path in opened for name in fakes if _holds(path, name)]
        blocks, reasons = find_blocks(network, [*(block.path for block in blocks), *layers], samples)
        done_instead = "its layers were learnt one by one"
        notes += [Note("TP211", "note", path, f"{why}: {done_instead}") for path, why in opened.items()]
    notes += [_left(path, reason) for path, reason in reasons.items()]
    changes: list[Change] = []
    weights = {
        name: _put(network, name, fake, _weight(network, name))
        for name, fake in fakes.items()
        if any(_holds(path, name) for path in reasons)
    }
    shared = _shared(network)
    total = how.steps * len(blocks)
    fed: tuple[Rows, Rows] | None = None
    wanted = torch.empty(0)
    for done, block in enumerate(blocks):
        named = f"{call}, block {block.path!r}"
        module, float_module = network.get_submodule(block.path), original.get_submodule(block.path)
        if fed is not None and block.follows is not None:  # no need to begin at the input again
            last = network.get_submodule(fed[0].block.path)
            made = rows_made(call, last, fed[0])
            fed = rows_after(block, fed[0], made), rows_after(block, fed[1], wanted)
        else:
            fed = rows_fed(call, network, block, samples), rows_fed(call, original, block, samples)
        wanted = rows_made(call, float_module, fed[1])
        own = [name for name in fakes if _holds(block.path, name)]
        latents = _latents(network, block.path, {name: fakes[name] for name in own}, shared, pruned)

        def tell(step: int, before: int = done * how.steps) -> None:
            if not step % 10:
                progress("learning blocks", before + step, total)

        found = learn_block(named, module, fed[0], wanted, latents, how, tell)
        if found is None:
            notes.append(_left(block.path, "it makes the same of all calibration samples"))
        elif found[1] >= found[0]:
            notes.append(_left(block.path, f"{how.steps} steps made it no better"))
        else:
            changes.append(Change(block.path, "error of its outputs", *found))
        for name in own:
            weights[name] = _put(network, name, fakes[name], latents.weights[_within(block.path, name)])
        for name, bias in latents.biases.items():
            parameter = module.get_parameter(name)
            parameter.data = bias.detach().to(parameter.dtype)
    progress("learning blocks", total, total)
    return Reconstructed(weights, tuple(changes), tuple(notes))


def _latents(
    network: nn.Module,
    path: str,
    fakes: Mapping[str, FakeWeight],
    shared: Collection[int],
    pruned: Collection[str],
) -> Latents:
    """The weights of ``fakes`` and every bias in the block that nobody else has, as they are."""
    block, start = network.get_submodule(path), f"{path}." if path else ""
    own = {_within(path, name): fake for name, fake in fakes.items()}
    weights = {name: _latent(block.get_parameter(name)) for name in own}
    biases = {
        name: _latent(parameter)
        for name, parameter in block.named_parameters()
        if name.rpartition(".")[2] == "bias" and id(parameter) not in shared
    }
    zeros = {
        name: values.detach() == 0
        for name, values in {**weights, **biases}.items()
        if name in weights or start + name in pruned
    }
    return Latents(weights, own, biases, zeros)


def _latent(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().float().clone())


def _put(network: nn.Module, name: str, fake: FakeWeight, latent: Tensor) -> QuantizedWeight:
    """The integers of a layer, whose weight becomes what they stand for."""
    packed = fake.packed(latent)
    weight = _weight(network, name)
    weight.data = dequantize_layer_weights(packed).to(weight)
    return packed


def _weight(network: nn.Module, name: str) -> Tensor:
    weight = network.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def _holds(path: str, layer: str) -> bool:
    return not path or layer == path or layer.startswith(f"{path}.")


def _within(path: str, layer: str) -> str:
    """The name of a layer's weight in the block at ``path``."""
    return f"{layer[len(path) :]}.weight".removeprefix(".")


def _shared(network: nn.Module) -> set[int]:
    """Parameters that stand in the network under several names."""
    counts = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))
    return {key for key, count in counts.items() if count > 1}


def _left(path: str, reason: str) -> Note:
    return Note("TP211", "note", path, f"{reason}: its weights were rounded under the least squared error")
