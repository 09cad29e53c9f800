"""Mistakes that people make about sparsity and magnitude pruning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinypress_course.kit import Change, Compressed
from tinypress_course.misconceptions.base import Misconception

_PRUNED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def _zero_share(tensor: Tensor) -> float:
    return 1 - torch.count_nonzero(tensor).item() / tensor.numel()


def _tensors(given: Any, kinds: tuple[type[nn.Module], ...] = _PRUNED, biases: bool = False) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    chosen = [m for m in given.modules() if isinstance(m, kinds)]
    return [p for m in chosen for name, p in m.named_parameters(recurse=False) if biases or name == "weight"]


def _of_children(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    return [m.weight for m in (given, *given.children()) if isinstance(m, _PRUNED)]


def _share(
    given: Any,
    hit: Callable[[Tensor], Tensor] = lambda t: t == 0,
    tensors: Callable[[Any], list[Tensor]] = _tensors,
    then: Callable[[float], float] = lambda share: share,
    each: bool = False,
) -> float:
    counts = [(hit(t).sum().item(), t.numel()) for t in tensors(given)]
    if each:
        shares = [hits / numel for hits, numel in counts if numel]
        return then(sum(shares) / max(1, len(shares)))
    numbers = sum(numel for _, numel in counts)
    return then(sum(hits for hits, _ in counts) / numbers) if numbers else 0.0


def _zeros(given: Any) -> float:
    return float(sum(t.numel() - t.count_nonzero().item() for t in _tensors(given)))


def _divide_by_nothing(given: Any) -> float:
    return (torch.cat([t.flatten() for t in _tensors(given)]) == 0).float().mean().item()


Mask = Callable[[Tensor, float], Tensor]


def _mask(
    sparsity_of: Callable[[float], float] = lambda s: s,
    score: Callable[[Tensor], Tensor] = torch.abs,
    whole: Callable[[float], int] = round,
) -> Mask:
    """Which places ``score`` and the counting would prune; the first ``whole(sparsity * n)`` in rising order."""

    def places(weight: Tensor, sparsity: float) -> Tensor:
        rising = score(weight.flatten()).sort(stable=True).indices
        gone = torch.zeros(weight.numel(), dtype=torch.bool)
        gone[rising[: min(weight.numel(), max(0, whole(sparsity_of(sparsity) * weight.numel())))]] = True
        return gone.view_as(weight)

    return places


_BY_MAGNITUDE = _mask()


def _below(strictly: bool) -> Mask:
    def places(weight: Tensor, sparsity: float) -> Tensor:
        count = round(sparsity * weight.numel())
        if not count > 0:
            return torch.zeros_like(weight, dtype=torch.bool)
        edge = weight.abs().flatten().kthvalue(min(count, weight.numel())).values
        return weight.abs() < edge if strictly else weight.abs() <= edge

    return places


def _quantile(weight: Tensor, sparsity: float) -> Tensor:
    return weight.abs() < torch.quantile(weight.abs().flatten(), sparsity)


def _quantile_and_equal(weight: Tensor, sparsity: float) -> Tensor:
    return weight.abs() <= torch.quantile(weight.abs().flatten(), sparsity)


def _share_of_largest(weight: Tensor, sparsity: float) -> Tensor:
    return weight.abs() < sparsity * weight.abs().max()


def _plain_threshold(weight: Tensor, sparsity: float) -> Tensor:
    return weight.abs() < sparsity


def _each_neuron(weight: Tensor, sparsity: float) -> Tensor:
    return torch.stack([_BY_MAGNITUDE(row, sparsity) for row in weight.flatten(1)]).view_as(weight)


def _of_the_rest(weight: Tensor, sparsity: float) -> Tensor:
    alive = weight != 0
    gone = ~alive
    gone[alive] = _BY_MAGNITUDE(weight[alive], sparsity)
    return gone


def _whole_neurons(weight: Tensor, sparsity: float) -> Tensor:
    rows = _BY_MAGNITUDE(weight.flatten(1).norm(dim=1), sparsity)
    return rows.view(-1, *[1] * (weight.ndim - 1)).expand_as(weight)


def _prune(
    layer: nn.Module,
    sparsity: float,
    mask: Mask = _BY_MAGNITUDE,
    in_place: bool = False,
    bias: bool = False,
    rescaled: bool = False,
    told: str = "measured",
) -> Compressed:
    pruned = layer if in_place else copy.deepcopy(layer)
    weight: Tensor = pruned.weight.data  # type: ignore[assignment]
    was = _zero_share(weight)
    weight.masked_fill_(mask(weight.clone(), sparsity), 0.0)
    if rescaled:
        weight.div_(1 - sparsity)
    if bias and isinstance(pruned.bias, Tensor):
        pruned.bias.data.masked_fill_(mask(pruned.bias.data.clone(), sparsity), 0.0)
    change = Change("", "sparsity", was, _zero_share(weight))
    if told == "asked":
        change = Change("", "sparsity", was, float(sparsity))
    elif told == "percent":
        change = Change("", "sparsity", 100 * was, 100 * _zero_share(weight))
    elif told == "swapped":
        change = Change("", "sparsity", _zero_share(weight), was)
    return Compressed(pruned, changes=(change,), pruned=frozenset({"weight"}))


def _prune_all(
    model: nn.Module,
    sparsity: float,
    scope: str = "global",
    mask: Mask = _BY_MAGNITUDE,
    always: str | None = None,
    kinds: tuple[type[nn.Module], ...] = _PRUNED,
    skipped: int = 0,
    in_place: bool = False,
    parameters: tuple[str, ...] = ("weight",),
    told: str = "measured",
    order: Callable[[Iterable[str]], Iterable[str]] = list,
    suffix: str = ".weight",
    relative: bool = False,
) -> Compressed:
    pruned = model if in_place else copy.deepcopy(model)
    layers = {n: m for n, m in pruned.named_modules() if isinstance(m, kinds)}
    layers = dict(list(layers.items())[: len(layers) - skipped])
    tensors = {
        (n, p): t.data
        for n, m in layers.items()
        for p, t in m.named_parameters(recurse=False)
        if p in parameters
    }
    was = {n: _zero_share(tensors[n, "weight"]) for n in layers}
    if (always or scope) == "layer":
        masks = {key: mask(t, sparsity) for key, t in tensors.items()}
    else:
        rows = [t.flatten() / t.abs().mean() if relative else t.flatten() for t in tensors.values()]
        together = mask(torch.cat(rows), sparsity)
        sizes = [t.numel() for t in tensors.values()]
        masks = dict(zip(tensors, torch.split(together, sizes), strict=True))
    for key, tensor in tensors.items():
        tensor.masked_fill_(masks[key].view_as(tensor), 0.0)
    now = {n: float(sparsity) if told == "asked" else _zero_share(tensors[n, "weight"]) for n in layers}
    if told == "dense":
        was = dict.fromkeys(layers, 0.0)
    changes = tuple(Change(n, "sparsity", was[n], now[n]) for n in order(layers))
    return Compressed(pruned, changes=changes, pruned=frozenset(n + suffix for n in layers))


def _descending(tensor: Tensor) -> Tensor:
    return -tensor.abs()


_of_sparsity = partial(Misconception, "calculate_sparsity")
_of_layer = partial(Misconception, "prune_weights_by_magnitude")
_of_model = partial(Misconception, "prune_model_by_magnitude")

_RESULT = ("layer", "changes", "pruned")

# mistakes about which weights go, that a layer and a whole network share
_WHICH: tuple[tuple[str, str, Mask], ...] = (
    (
        "largest pruned",
        "You prune the largest weights and keep the smallest: those that carry the answer go first.",
        _mask(score=_descending),
    ),
    (
        "sign taken for size",
        "You rank the weights with their sign, so large negative weights are pruned before tiny positive ones.",
        _mask(score=lambda t: t),
    ),
    (
        "positive ones first",
        "You rank the weights with their sign, from the top: large positive weights are pruned first.",
        _mask(score=lambda t: -t),
    ),
    (
        "share kept instead of pruned",
        "You keep the share that was to be pruned: sparsity says how many weights become zero.",
        _mask(sparsity_of=lambda s: 1 - s),
    ),
    (
        "percent for fraction",
        "You divide sparsity by 100. It is a fraction already, so a hundred times too few weights go.",
        _mask(sparsity_of=lambda s: s / 100),
    ),
    (
        "number rounded down",
        "The number of weights to prune is cut off, not rounded: it is one too small when the rest is above a half.",
        _mask(whole=math.floor),
    ),
    (
        "number rounded up",
        "The number of weights to prune is always rounded up.",
        _mask(whole=math.ceil),
    ),
    (
        "half rounded up",
        "You round a half always up; round() takes the even neighbour, as the statement asks.",
        _mask(whole=lambda n: math.floor(n + 0.5)),
    ),
    (
        "threshold takes its equals along",
        "You prune everything up to a threshold: weights that equal it all go, more than were asked for.",
        _below(strictly=False),
    ),
    (
        "threshold spares its equals",
        "You prune only what lies below a threshold: the weight on it, and its equals, stay, so too few go.",
        _below(strictly=True),
    ),
    (
        "quantile as a threshold",
        "Your threshold is an interpolated quantile: it does not hit the promised number, least of all among equals.",
        _quantile,
    ),
    (
        "quantile takes its equals along",
        "Your threshold is an interpolated quantile, and all weights that equal it go as well.",
        _quantile_and_equal,
    ),
    (
        "share of the largest",
        "Your threshold is a share of the largest magnitude: how many weights lie below it depends on their spread.",
        _share_of_largest,
    ),
    (
        "sparsity as a threshold",
        "You use sparsity itself as the threshold on magnitudes. It says how many go, not how small they must be.",
        _plain_threshold,
    ),
    (
        "sparsity of what is left",
        "You prune a share of the weights that are not zero yet: zeros that were there count towards sparsity too.",
        _of_the_rest,
    ),
)

MISCONCEPTIONS: tuple[Misconception, ...] = (
    _of_sparsity(
        "density",
        "You give the share of weights that are not zero: that is density.",
        partial(_share, hit=lambda t: t != 0),
    ),
    _of_sparsity(
        "percent",
        "You give percent; a fraction from 0 to 1 was promised.",
        partial(_share, then=lambda s: 100 * s),
    ),
    _of_sparsity(
        "rounded",
        "You round the fraction: of a million weights, thousands of zeros disappear in the second digit.",
        partial(_share, then=lambda s: round(s, 2)),
    ),
    _of_sparsity(
        "whole division",
        "Your division drops everything after the point: the result is 0 or 1.",
        partial(_share, then=lambda s: float(math.floor(s))),
    ),
    _of_sparsity(
        "small ones are zeros",
        "You count small weights as zeros. Only an exact zero can be left out of a file.",
        partial(_share, hit=lambda t: t.abs() < 1e-6),
    ),
    _of_sparsity(
        "biases counted",
        "Biases are counted too. Pruning leaves them alone, so they would hide what it did.",
        partial(_share, tensors=partial(_tensors, biases=True)),
    ),
    _of_sparsity(
        "every parameter counted",
        "Every parameter is counted, also those of batch norms, which nobody prunes.",
        partial(_share, tensors=partial(_tensors, kinds=(nn.Module,), biases=True)),
    ),
    _of_sparsity(
        "every weight tensor counted",
        "Everything called weight is counted, also a batch norm's, which nobody prunes.",
        partial(_share, tensors=partial(_tensors, kinds=(*_PRUNED, nn.BatchNorm1d, nn.BatchNorm2d))),
    ),
    _of_sparsity(
        "embeddings counted",
        "You count matrices of other layers too, such as an embedding's, which this pruning leaves alone.",
        partial(_share, tensors=partial(_tensors, kinds=(*_PRUNED, nn.Embedding))),
    ),
    _of_sparsity(
        "direct children alone",
        "You look at the direct children alone: layers inside a block are not counted.",
        partial(_share, tensors=_of_children),
    ),
    _of_sparsity(
        "average of layers",
        "You average the layers' fractions: a layer with ten weights counts as much as one with a million.",
        partial(_share, each=True),
    ),
    _of_sparsity("number of zeros", "You give the number of zeros; a fraction was promised.", _zeros),
    _of_sparsity(
        "nothing divided by nothing",
        "A tensor without a single weight is divided by its size, 0.",
        _divide_by_nothing,
    ),
    _of_sparsity(
        "division by an empty tensor",
        "A tensor without a single weight is divided by its size, 0.",
        lambda given: _zeros(given) / sum(t.numel() for t in _tensors(given)),
    ),
    *(_of_layer(name, says, partial(_prune, mask=mask), _RESULT) for name, says, mask in _WHICH),
    _of_layer(
        "each neuron on its own",
        "You prune the same share of every neuron. Ranked over the whole layer, strong neurons keep more.",
        partial(_prune, mask=_each_neuron),
        _RESULT,
    ),
    _of_layer(
        "whole neurons",
        "You zero whole neurons; single weights were to be chosen.",
        partial(_prune, mask=_whole_neurons),
        _RESULT,
    ),
    _of_layer(
        "bias pruned",
        "The bias is pruned with the weights. There are few of them, and each shifts a whole neuron.",
        partial(_prune, bias=True),
        _RESULT,
    ),
    _of_layer(
        "the rest scaled up",
        "You scale up the weights that stay, as dropout does. Pruning leaves them as they are.",
        partial(_prune, rescaled=True),
        _RESULT,
    ),
    _of_layer(
        "input changed",
        "You change the layer that came in: whoever wants to compare before and after has lost the before.",
        partial(_prune, in_place=True),
        ("input_after", "same_object"),
    ),
    _of_layer(
        "nothing pruned",
        "The weights come back unchanged: what you compute does not reach the copy.",
        partial(_prune, mask=lambda weight, sparsity: torch.zeros_like(weight, dtype=torch.bool)),
        _RESULT,
    ),
    _of_layer(
        "told what was asked",
        "Your change tells the sparsity that was asked for, and not what the tensor has.",
        partial(_prune, told="asked"),
    ),
    _of_layer("told in percent", "Your change is told in percent.", partial(_prune, told="percent")),
    _of_layer(
        "before and after swapped", "Your change swaps before and after.", partial(_prune, told="swapped")
    ),
    *(
        _of_model(name, says, partial(_prune_all, mask=mask), ("model",))
        for name, says, mask in _WHICH
        if name != "half rounded up"
    ),
    _of_model(
        "never together",
        "Every layer is pruned on its own, also where all were to be ranked together: the ranking never crosses "
        "layers.",
        partial(_prune_all, always="layer"),
        ("model",),
    ),
    _of_model(
        "always together",
        "All layers are ranked together, also where each was to be pruned on its own.",
        partial(_prune_all, always="global"),
        ("model",),
    ),
    _of_model(
        "no convolutions",
        "Convolutions are left out: only linear layers are pruned.",
        partial(_prune_all, kinds=(nn.Linear,)),
        ("model",),
    ),
    _of_model(
        "last layer spared",
        "The last layer is never pruned. That can be wise, but nobody asked for it, so sparsity is missed.",
        partial(_prune_all, skipped=1),
        ("model",),
    ),
    _of_model(
        "batch norms pruned",
        "You prune batch norms too: a scale of zero switches a whole channel off.",
        partial(_prune_all, kinds=(*_PRUNED, nn.BatchNorm1d, nn.BatchNorm2d)),
        ("model",),
    ),
    _of_model(
        "biases pruned",
        "You prune biases too: they are few, and each shifts a whole neuron.",
        partial(_prune_all, parameters=("weight", "bias")),
        ("model",),
    ),
    _of_model(
        "input changed",
        "You change the network that came in: whoever wants to compare before and after has lost the before.",
        partial(_prune_all, in_place=True),
        ("input_after",),
    ),
    _of_model(
        "told what was asked",
        "Your changes tell the sparsity that was asked for; ranked together, layers differ.",
        partial(_prune_all, told="asked"),
    ),
    _of_model(
        "told in the alphabet's order",
        "Your changes come sorted by name; the layers' own order was promised.",
        partial(_prune_all, order=sorted),
    ),
    _of_model(
        "dense before",
        "Your changes say that every layer had no zeros before. One that was pruned already had some.",
        partial(_prune_all, told="dense"),
    ),
    _of_model(
        "ranked within the layer",
        "You rank weights relative to their own layer, by its mean, spread or largest. Ranked together, magnitudes "
        "themselves are compared.",
        partial(_prune_all, relative=True),
        ("model",),
    ),
    _of_model(
        "layers instead of tensors",
        "pruned names layers; the tensors were to be named, such as 'fc.weight'.",
        partial(_prune_all, suffix=""),
    ),
)
