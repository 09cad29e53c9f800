"""Mistakes that people make about a network's size: what they compute instead, and how to tell them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, float32, nn

from tinypress_course.kit import ModelSize, ParameterCount, WeightSummary
from tinypress_course.misconceptions.base import Misconception

Held = Callable[[nn.Module], Mapping[str, Tensor]]


def _parameters(module: nn.Module) -> Mapping[str, Tensor]:
    return dict(module.named_parameters(recurse=False))


def _with_buffers(module: nn.Module) -> Mapping[str, Tensor]:
    return {**_parameters(module), **dict(module.named_buffers(recurse=False))}


def _without_bias(module: nn.Module) -> Mapping[str, Tensor]:
    return {name: t for name, t in _parameters(module).items() if name != "bias"}


def _matrices(module: nn.Module) -> Mapping[str, Tensor]:
    return {name: t for name, t in _parameters(module).items() if t.ndim > 1}


def _called_weight_or_bias(module: nn.Module) -> Mapping[str, Tensor]:
    return {name: t for name, t in _parameters(module).items() if name in ("weight", "bias")}


def _called_weight(module: nn.Module) -> Mapping[str, Tensor]:
    return {name: t for name, t in _parameters(module).items() if name == "weight"}


def _layers_of_two_kinds(module: nn.Module) -> Mapping[str, Tensor]:
    return _parameters(module) if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) else {}


def _each(model: nn.Module, held: Held, twice: bool = False) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """(layer, what it holds) of every module; a shared tensor with the first alone, unless it is to count ``twice``."""
    seen: set[Tensor] = set()
    for name, module in model.named_modules():
        yield name, {each: t for each, t in held(module).items() if twice or t not in seen}
        seen.update(held(module).values())


def _count(
    model: nn.Module,
    held: Held = _parameters,
    of: Callable[[Tensor], int] = Tensor.numel,
    total: Callable[[int, int], int] = lambda every, learning: every,
    trainable: Callable[[int, int], int] = lambda every, learning: learning,
    by_tensor: bool = False,
    twice: bool = False,
) -> ParameterCount:
    found = [(name, each, t) for name, own in _each(model, held, twice) for each, t in own.items()]
    layers: dict[str, int] = {}
    for name, each, tensor in found:
        key = f"{name}.{each}" if by_tensor else name
        layers[key] = layers.get(key, 0) + of(tensor)
    every = sum(layers.values())
    learning = sum(of(t) for _, _, t in found if t.requires_grad)
    return ParameterCount(total(every, learning), trainable(every, learning), layers)


def _count_recursively(model: nn.Module) -> ParameterCount:
    layers = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}
    every = sum(layers.values())
    return ParameterCount(every, every, layers)


def _by_the_first(model: nn.Module) -> ParameterCount:
    right = _count(model)
    learning = sum(
        sum(p.numel() for p in own)
        for module in model.modules()
        if (own := list(module.parameters(recurse=False))) and own[0].requires_grad
    )
    return ParameterCount(right.total, learning, right.by_layer)


def _whole_layers_learning(model: nn.Module) -> ParameterCount:
    right = _count(model)
    learning = sum(
        sum(p.numel() for p in own)
        for module in model.modules()
        if (own := list(module.parameters(recurse=False))) and all(p.requires_grad for p in own)
    )
    return ParameterCount(right.total, learning, right.by_layer)


def _frozen_left_out(model: nn.Module) -> ParameterCount:
    layers: dict[str, int] = {}
    for name, module in model.named_modules():
        learning = sum(p.numel() for p in module.parameters(recurse=False) if p.requires_grad)
        if learning:
            layers[name] = learning
    return ParameterCount(sum(layers.values()), sum(layers.values()), layers)


def _children_alone(model: nn.Module) -> ParameterCount:
    counts = {name: list(child.parameters()) for name, child in model.named_children()}
    layers = {name: sum(p.numel() for p in own) for name, own in counts.items() if own}
    learning = sum(p.numel() for own in counts.values() for p in own if p.requires_grad)
    return ParameterCount(sum(layers.values()), learning, layers)


def _with_the_last(model: nn.Module) -> ParameterCount:
    owner = {p: name for name, module in model.named_modules() for p in module.parameters(recurse=False)}
    layers: dict[str, int] = {}
    for parameter, name in owner.items():
        layers[name] = layers.get(name, 0) + parameter.numel()
    right = _count(model)
    return ParameterCount(right.total, right.trainable, layers)


Bytes = Callable[[Tensor, int | None], int]


def _stored(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _packed(tensor: Tensor) -> bool:
    return tensor.ndim > 1


def _bytes(counted: Callable[[int, int], int], packs: Callable[[Tensor], bool] = _packed) -> Bytes:
    """Bytes of a tensor where ``counted`` turns (numbers, bits) of a packed one into bytes."""
    return lambda t, bits: counted(t.numel(), bits) if bits is not None and packs(t) else _stored(t)


def _round_up(numbers: int, bits: int) -> int:
    return -(-numbers * bits // 8)


_RIGHT = _bytes(_round_up)


def _size(
    model: nn.Module,
    bits: int | None = None,
    of: Bytes = _RIGHT,
    buffers: bool = True,
    buffer_of: Callable[[Tensor], bool] = lambda t: True,
    unit: float = 1,
    total_of: Callable[[int, int], int] = lambda parameters, buffers: parameters + buffers,
    twice: bool = False,
) -> ModelSize:
    if not isinstance(model, nn.Module):
        raise ValueError(f"a {type(model).__name__} is no network")
    kinds: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    sums = {"parameters": 0, "buffers": 0}
    for name, parameters in _each(model, _parameters, twice):
        held = {"parameters": list(parameters.values())}
        own = [b for _, b in model.get_submodule(name).named_buffers(recurse=False) if buffer_of(b)]
        held["buffers"] = own if buffers else []
        for group, tensors in held.items():
            for tensor in tensors:
                kind = str(tensor.dtype).split(".")[1]
                if bits is not None and group == "parameters" and _packed(tensor):
                    kind = f"int{bits}"
                size = of(tensor, bits) if group == "parameters" else of(tensor, None)
                sums[group] += size
                for table, key in ((kinds, kind), (layers, name)):
                    table[key] = table.get(key, 0) + size
    whole = total_of(sums["parameters"], sums["buffers"])
    if unit != 1:
        kinds, layers = ({k: v / unit for k, v in table.items()} for table in (kinds, layers))
        return ModelSize(whole / unit, sums["parameters"] / unit, sums["buffers"] / unit, kinds, layers)  # type: ignore[arg-type]
    return ModelSize(whole, sums["parameters"], sums["buffers"], kinds, layers)


def _summary(
    values: Any,
    near_zero: float,
    ddof: int = 0,
    near: Callable[[Any, float], Any] = lambda v, t: np.abs(v) <= t,
    share: Callable[[Any], float] = lambda hits: float(np.mean(hits)),
    mean: Callable[[Any], float] = lambda v: float(np.mean(v)),
    spread: Callable[[Any], Any] = lambda v: v,
    zero: Callable[[Any, float], Any] = lambda v, t: v == 0,
    centre: Callable[[Any], float] = lambda v: float(v.mean()),
    squared: bool = False,
) -> WeightSummary:
    ends = spread(values)
    with np.errstate(all="ignore"):
        std = (
            (float(((values - centre(values)) ** 2).sum()) / max(len(values) - ddof, 0))
            ** (1 if squared else 0.5)
            if (len(values) > ddof)
            else math.nan
        )
    return WeightSummary(
        len(values), mean(values), std, float(ends.min()), float(ends.max()),
        share(near(values, near_zero)), share(zero(values, near_zero)),
    )  # fmt: skip


def _spread(
    model: nn.Module,
    *,
    near_zero: float = 1e-3,
    held: Held = _matrices,
    whole: str = "all",
    twice: bool = False,
    **mistake: Any,
) -> dict[str, WeightSummary]:
    found: Iterator[tuple[str, list[Tensor]]] = (
        (name, list(own.values())) for name, own in _each(model, held, twice)
    )
    rows = {
        name: np.concatenate([t.detach().numpy().astype(np.float64).ravel() for t in tensors])
        for name, tensors in found
        if tensors
    }
    done = {name: _summary(row, near_zero, **mistake) for name, row in rows.items()}
    if whole == "all":
        done[""] = _summary(np.concatenate(list(rows.values())), near_zero, **mistake)
    elif whole == "overwritten":
        done = {"": _summary(np.concatenate(list(rows.values())), near_zero, **mistake), **done}
    elif whole == "average of layers":
        fields = WeightSummary.__dataclass_fields__
        averages: dict[str, Any] = {
            f: float(np.mean([getattr(each, f) for each in done.values()])) for f in fields
        }
        done[""] = WeightSummary(**{**averages, "count": sum(map(len, rows.values()))})
    return done


def _of(function: str) -> Callable[..., Misconception]:
    return partial(Misconception, function)


_counts, _sizes, _spreads = (
    _of("count_parameters"),
    _of("calculate_model_size"),
    _of("analyze_weight_distribution"),
)

MISCONCEPTIONS: tuple[Misconception, ...] = (
    _counts(
        "tensors instead of values",
        "You count parameter tensors. A tensor holds many values, and the file has to store each of them.",
        partial(_count, of=lambda t: 1),
        ("by_layer",),
    ),
    _counts(
        "buffers counted",
        "You count buffers too, such as a batch norm's running mean. Training by gradient never changes those.",
        partial(_count, held=_with_buffers),
    ),
    _counts(
        "bias left out",
        "Your count leaves out what is called bias. A bias is learned and stored like any other value.",
        partial(_count, held=_without_bias),
    ),
    _counts(
        "only matrices",
        "You count only tensors with two or more dimensions: biases and batch norms have one, and are learned too.",
        partial(_count, held=_matrices),
    ),
    _counts(
        "frozen ones missing",
        "Your total leaves out frozen parameters. They are not trained any more, and still lie in the file.",
        partial(_count, total=lambda every, learning: learning),
    ),
    _counts(
        "everything trainable",
        "You call every parameter trainable, also those whose requires_grad is off.",
        partial(_count, trainable=lambda every, learning: every),
    ),
    _counts(
        "counted at every level",
        "A layer's values are counted once for the layer and again for each module around it.",
        _count_recursively,
    ),
    _counts(
        "only weight and bias",
        "You count what is called weight or bias. Some layers give their parameters other names, such as an LSTM.",
        partial(_count, held=_called_weight_or_bias),
    ),
    _counts(
        "only linear and convolutional layers",
        "You count linear and convolutional layers alone. Others learn too: batch norms, embeddings, an LSTM.",
        partial(_count, held=_layers_of_two_kinds),
    ),
    _counts(
        "layer judged by its first parameter",
        "You take a whole layer for trainable or frozen by one of its parameters. Each has its own requires_grad.",
        _by_the_first,
    ),
    _counts(
        "layer judged as a whole",
        "You take a layer for frozen as soon as one of its parameters is. Each has its own requires_grad.",
        _whole_layers_learning,
    ),
    _counts(
        "frozen ones missing everywhere",
        "You leave frozen parameters out. They are not trained any more, and still lie in the file.",
        _frozen_left_out,
    ),
    _counts(
        "direct children alone",
        "You look at the direct children alone: what lies inside a block is told under the block's name.",
        _children_alone,
    ),
    _counts(
        "named by tensor",
        "by_layer has an entry for each tensor (such as 'fc.weight'); it was to have one for each layer.",
        partial(_count, by_tensor=True),
    ),
    _counts(
        "shared ones twice",
        "A tensor that two layers share is counted with each of them. It is one tensor, and learned once.",
        partial(_count, twice=True),
    ),
    _counts(
        "shared ones with the last",
        "A parameter that two layers share is told under the last of them; it belongs to the first.",
        _with_the_last,
    ),
    _sizes(
        "only float32 packed",
        "You pack float32 alone. Weights of half and of double precision are floating-point numbers too.",
        partial(_size, of=_bytes(_round_up, packs=lambda t: t.ndim > 1 and t.dtype == float32)),
        ("total_bytes", "parameter_bytes"),
    ),
    _sizes(
        "every row rounded up",
        "You round each row up to whole bytes. The tensor is packed end to end, and rounded up once.",
        partial(
            _size,
            of=lambda t, bits: len(t) * _round_up(t[0].numel(), bits) if bits and _packed(t) else _stored(t),
        ),
    ),
    _sizes(
        "shared ones twice",
        "A tensor that two layers share is counted with each of them. It lies in the file once.",
        partial(_size, twice=True),
    ),
    _sizes(
        "buffers left out",
        "The buffers are missing: a batch norm's running statistics lie in the file too.",
        partial(_size, buffers=False),
    ),
    _sizes(
        "buffers not in the total",
        "buffer_bytes is told, but the total does not hold it.",
        partial(_size, total_of=lambda parameters, buffers: parameters),
    ),
    _sizes(
        "buffers of whole numbers left out",
        "You leave out buffers of whole numbers, such as a batch norm's counter. They lie in the file too.",
        partial(_size, buffer_of=Tensor.is_floating_point),
    ),
    _sizes(
        "share of the old bytes",
        "You take bits / 32 of the old bytes. A network need not be float32: count the weights, not their bytes.",
        partial(_size, of=lambda t, bits: -(-_stored(t) * bits // 32) if bits and _packed(t) else _stored(t)),
    ),
    _sizes(
        "four bytes each",
        "You take four bytes for every value. Not every tensor is float32: look at a batch norm's counter.",
        partial(
            _size, of=lambda t, bits: _round_up(t.numel(), bits) if bits and _packed(t) else 4 * t.numel()
        ),
    ),
    _sizes(
        "bits taken for bytes",
        "The packed weights are counted in bits, and called bytes: everything is eight times too large.",
        partial(_size, of=_bytes(lambda numbers, bits: numbers * bits)),
    ),
    _sizes(
        "rounded before multiplying",
        "You divide the bits of one weight by 8 and drop the rest before multiplying: below 8 bits nothing is left.",
        partial(_size, of=_bytes(lambda numbers, bits: numbers * (bits // 8))),
    ),
    _sizes(
        "a whole byte each",
        "You round each weight up to a whole byte: at 4 bits two of them share one.",
        partial(_size, of=_bytes(lambda numbers, bits: numbers * math.ceil(bits / 8))),
    ),
    _sizes(
        "rounded down",
        "The last, half-filled byte is dropped: three weights of 4 bits do not fit into one byte.",
        partial(_size, of=_bytes(lambda numbers, bits: numbers * bits // 8)),
    ),
    _sizes(
        "not a whole number of bytes",
        "A part of a byte comes out. A file is made of whole bytes, so the last one is counted fully.",
        partial(_size, of=_bytes(lambda numbers, bits: numbers * bits / 8)),  # type: ignore[arg-type, return-value]
    ),
    _sizes(
        "biases packed",
        "You pack biases and batch norms as well. Only tensors with two or more dimensions were to be packed.",
        partial(_size, of=_bytes(_round_up, packs=Tensor.is_floating_point)),
        ("parameter_bytes",),
    ),
    _sizes(
        "bits ignored",
        "The size does not depend on bits: packing changes nothing in it.",
        partial(_size, of=lambda t, bits: _stored(t)),
    ),
    _sizes(
        "numbers instead of bytes",
        "You count numbers. Each takes as many bytes as its dtype says.",
        partial(_size, of=lambda t, bits: t.numel()),
    ),
    _sizes("kilobytes", "You return kilobytes; bytes were promised.", partial(_size, unit=1024)),
    _sizes("thousands of bytes", "You return kilobytes; bytes were promised.", partial(_size, unit=1000)),
    _spreads(
        "shared ones twice",
        "A tensor that two layers share is described with each of them, and weighs twice in the whole.",
        partial(_spread, twice=True),
    ),
    _spreads(
        "whole overwritten",
        "The network's own weights are called '' as well, and take the place of the summary of all weights.",
        partial(_spread, whole="overwritten"),
    ),
    _spreads(
        "deviation of a sample",
        "Your standard deviation divides by one less than the count, as for a sample. These are all the weights "
        "there are, and a layer with a single one gets NaN.",
        partial(_spread, ddof=1),
    ),
    _spreads(
        "mean not taken off",
        "Your standard deviation does not take the mean off first: that is the root mean square.",
        partial(_spread, centre=lambda v: 0.0),
    ),
    _spreads(
        "variance",
        "Your standard deviation is the variance: the root is missing.",
        partial(_spread, squared=True),
    ),
    _spreads(
        "weights by their name",
        "You take for weights what is called weight. A batch norm's weight has one dimension, and an LSTM's have "
        "other names.",
        partial(_spread, held=_called_weight),
    ),
    _spreads(
        "biases among the weights",
        "Biases and batch norms are mixed into the weights.",
        partial(_spread, held=_parameters),
    ),
    _spreads(
        "threshold left out",
        "A weight that lies exactly on the threshold is not counted as near zero.",
        partial(_spread, near=lambda v, t: np.abs(v) < t),
    ),
    _spreads(
        "zeros not near zero",
        "You leave exact zeros out of what is near zero. They are as near as can be.",
        partial(_spread, near=lambda v, t: (np.abs(v) <= t) & (v != 0)),
    ),
    _spreads(
        "negative ones near zero",
        "You compare the weights themselves with the threshold, so every negative one is near zero.",
        partial(_spread, near=lambda v, t: v <= t),
    ),
    _spreads(
        "counts instead of shares",
        "near_zero and sparsity are numbers of weights; fractions from 0 to 1 were promised.",
        partial(_spread, share=lambda hits: float(np.sum(hits))),
    ),
    _spreads(
        "percent",
        "near_zero and sparsity are in percent; fractions from 0 to 1 were promised.",
        partial(_spread, share=lambda hits: 100 * float(np.mean(hits))),
    ),
    _spreads(
        "mean of magnitudes",
        "Your mean is that of the magnitudes: the sign is lost.",
        partial(_spread, mean=lambda v: float(np.abs(v).mean())),
    ),
    _spreads(
        "lowest of magnitudes",
        "low and high are those of the magnitudes, so low is never negative.",
        partial(_spread, spread=np.abs),
    ),
    _spreads(
        "sparsity of small ones",
        "Your sparsity counts small weights. Only exact zeros can be left out of a file.",
        partial(_spread, zero=lambda v, t: np.abs(v) <= t),
    ),
    _spreads(
        "density instead of sparsity",
        "Your sparsity is the share of weights that are not zero.",
        partial(_spread, zero=lambda v, t: v != 0),
    ),
    _spreads(
        "average of averages",
        "The whole network's summary is the average of the layers': a small layer counts as much as a large one.",
        partial(_spread, whole="average of layers"),
    ),
    _spreads(
        "whole network missing",
        "The summary of all weights together, under the empty name, is missing.",
        partial(_spread, whole="missing"),
    ),
)
