"""Mistakes that people make when they remove neurons, and what hangs on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinypress import compute_neuron_importance
from tinypress_course.checks.base import Answer, Case
from tinypress_course.kit import Change, Compressed
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.models import Plain

_NEURONS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_OF_NORM = ("weight", "bias", "running_mean", "running_var")
Choice = Callable[[Tensor, int], Tensor]
Places = Callable[[Tensor, int, int], Tensor]


def _most_important(scores: Tensor, left: int) -> Tensor:
    return scores.argsort(stable=True)[len(scores) - left :].sort().values


def _blocks(keep: Tensor, each: int, width: int) -> Tensor:
    """The places that the next layer reads the neurons ``keep`` from: ``each`` side by side for every neuron."""
    return (keep[:, None] * each + torch.arange(each)).flatten()


def _number(ratio: float, width: int) -> int:
    return min(round(ratio * width), width - 1)


def _cut(module: nn.Module, name: str, axis: int, places: Tensor) -> None:
    tensor = getattr(module, name)
    if isinstance(tensor, Tensor) and tensor.dim() > axis:
        rest = tensor.detach().index_select(axis, places)
        setattr(module, name, nn.Parameter(rest) if isinstance(tensor, nn.Parameter) else rest)


def _prune(
    model: nn.Module,
    layer: str,
    ratio: Any,
    example_inputs: tuple[Tensor, ...],
    *,
    importance: str = "l2",
    calibration: tuple[Tensor, ...] | None = None,
    seed: int = 0,
    chosen: Choice = _most_important,
    gone: Callable[[float, int], int] = _number,
    by: str | None = None,
    seeded: bool = True,
    calibrated_on: str = "calibration",
    copied: bool = True,
    only_zeros: bool = False,
    bias: bool = True,
    norms: tuple[str, ...] = _OF_NORM,
    norm_places: Callable[[Tensor], Tensor] = lambda keep: keep,
    norm_anew: bool = False,
    reader: bool = True,
    reader_axis: int = 1,
    reader_bias: bool = False,
    places: Places = _blocks,
    places_each: Callable[[int, int], int] = lambda inputs, width: inputs // width,
    attributes: tuple[str, ...] = ("own", "norm", "reader"),
    read_by: Callable[[Sequence[nn.Module]], nn.Module] = lambda readers: readers[0],
    every_norm: bool = False,
    told: Callable[[int, int], tuple[float, float]] = lambda was, now: (was, now),
    any_ratio: bool = False,
    any_layer: bool = False,
    last_too: bool = False,
    runs: bool = True,
    run_itself: bool = False,
    score: Callable[[nn.Module, nn.Module | None, Tensor], Tensor] = lambda cut, reader, scores: scores,
) -> Compressed:
    """Removing neurons with places for mistakes; with none of them it agrees with the statement."""
    if not any_ratio and (isinstance(ratio, str) or not 0 <= ratio < 1):
        raise ValueError(f"ratio {ratio}")
    pruned = copy.deepcopy(model) if copied else model
    by_name = dict(pruned.named_modules())
    if not isinstance(by_name.get(layer), _NEURONS):
        if any_layer:
            return Compressed(pruned)
        raise ValueError(f"layer {layer}")
    cut = by_name[layer]
    following = list(by_name.values())[list(by_name).index(layer) + 1 :]
    readers = [module for module in following if isinstance(module, _NEURONS)]
    if not readers and not last_too:
        raise ValueError("the last layer")
    reader_of = read_by(readers) if readers else None
    between = following[: following.index(readers[0])] if readers and not every_norm else following
    activations = _activations(pruned, cut, calibration if calibrated_on == "calibration" else example_inputs)
    scores = compute_neuron_importance(
        cut,
        by or importance,  # type: ignore[arg-type]
        activations=activations if (by or importance) == "activation" else None,
        seed=seed if seeded else 0,
    )
    scores = score(cut, reader_of, scores)
    width = len(scores)
    keep = chosen(scores, width - gone(ratio, width))
    if only_zeros:
        removed = torch.tensor([at for at in range(width) if at not in keep.tolist()], dtype=torch.long)
        for parameter in cut.parameters():
            parameter.data[removed] = 0.0
        return Compressed(pruned, changes=(Change(layer, "neurons", width, len(keep)),))
    _cut(cut, "weight", 0, keep)
    if bias:
        _cut(cut, "bias", 0, keep)
    for module in between:
        if isinstance(module, _NORMS) and norms:
            for name in norms:
                _cut(module, name, 0, norm_places(keep))
            if norm_anew:
                module.running_mean, module.running_var = torch.zeros(len(keep)), torch.ones(len(keep))
            if "norm" in attributes:
                module.num_features = len(keep)
    if reader_of is not None and reader:
        weight = _weight(reader_of)
        wide = places(keep, places_each(weight.shape[1], width), width) if reader_axis == 1 else keep
        _cut(reader_of, "weight", reader_axis, wide)
        if reader_bias:
            _cut(reader_of, "bias", 0, keep)
    if "own" in attributes:
        _tell_width(cut, "out", 0)
    if reader_of is not None and "reader" in attributes:
        _tell_width(reader_of, "in", 1)
    if runs:
        with torch.no_grad():
            (pruned if run_itself else copy.deepcopy(pruned).eval())(*example_inputs)
    return Compressed(pruned, changes=(Change(layer, "neurons", *told(width, len(keep))),))


def _activations(model: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...] | None) -> Tensor | None:
    if inputs is None:
        return None
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        model(*inputs)
    hook.remove()
    return seen[0]


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach()


def _tell_width(layer: nn.Module, side: str, axis: int) -> None:
    kind = "features" if isinstance(layer, nn.Linear) else "channels"
    setattr(layer, f"{side}_{kind}", _weight(layer).shape[axis])


def _by_reader(cut: nn.Module, reader: nn.Module | None, scores: Tensor) -> Tensor:
    assert reader is not None
    return _weight(reader).transpose(0, 1).reshape(len(scores), -1).square().sum(1)


def _with_bias(cut: nn.Module, reader: nn.Module | None, scores: Tensor) -> Tensor:
    bias = cut.bias
    return scores + bias.detach().abs() if isinstance(bias, Tensor) else scores


def _strided(keep: Tensor, each: int, width: int) -> Tensor:
    return (keep[None] + width * torch.arange(each)[:, None]).flatten()


def _interleaved(keep: Tensor, each: int, width: int) -> Tensor:
    return (keep[:, None] + width * torch.arange(each)).flatten()


def _network(case: Case, answer: Answer) -> Plain:
    """The tensors and widths of what came back; where it does not run, why."""
    layers = [[each["kind"], each["options"], each["state"]] for each in answer["model"]["layers"]]
    return [layers, answer.get("broke", "")]


def _states(case: Case, answer: Answer) -> Plain:
    return [each["state"] for each in answer["model"]["layers"]]


def _m(name: str, says: str, reads: Any = _states, **mistake: Any) -> Misconception:
    return Misconception(
        "prune_layer_neurons", name, says, partial(_prune, **mistake), reads=reads, right=_prune
    )


def _broken(name: str, says: str, **mistake: Any) -> tuple[Misconception, Misconception]:
    """A mistake after which the network does not run, seen by who runs it and by who does not."""
    return _m(name, says, _network, **mistake), _m(name, says, _network, runs=False, **mistake)


MISCONCEPTIONS: tuple[Misconception, ...] = (
    _m(
        "run in training mode",
        "You run the result itself. In training mode that moves the averages of its batch norms: run a copy, or in "
        "evaluation mode.",
        run_itself=True,
    ),
    _m(
        "most important removed",
        "You remove the neurons that matter most, and keep those that matter least.",
        chosen=lambda scores, left: scores.argsort(stable=True)[:left].sort().values,
    ),
    _m(
        "ratio kept instead of removed",
        "You keep the share that was to go: ratio says how many neurons are removed.",
        gone=lambda ratio, width: min(width - round(ratio * width), width - 1),
    ),
    _m(
        "number rounded down",
        "The number of neurons to remove is cut off, not rounded.",
        gone=lambda ratio, width: int(ratio * width),
    ),
    _m(
        "number rounded up",
        "The number of neurons to remove is always rounded up.",
        gone=lambda ratio, width: min(math.ceil(ratio * width), width - 1),
    ),
    _m(
        "half rounded up",
        "You round a half always up; round() takes the even neighbour, as the statement asks.",
        gone=lambda ratio, width: min(math.floor(ratio * width + 0.5), width - 1),
    ),
    _m(
        "those that stay rounded",
        "You round the number of neurons that stay; the number of those that go was to be rounded.",
        gone=lambda ratio, width: min(width - round((1 - ratio) * width), width - 1),
    ),
    _m(
        "those that stay rounded down",
        "You cut off the number of neurons that stay; the number of those that go was to be rounded.",
        gone=lambda ratio, width: min(width - int((1 - ratio) * width), width - 1),
    ),
    _m(
        "at least one removed",
        "You remove at least one neuron, also where the ratio is too small for that.",
        gone=lambda ratio, width: min(max(1, round(ratio * width)), width - 1),
    ),
    _m(
        "one neuron",
        "You remove one neuron, whatever the ratio is.",
        gone=lambda ratio, width: min(1, width - 1),
    ),
    _m(
        "percent for fraction",
        "You divide ratio by 100. It is a fraction already, so a hundred times too few neurons go.",
        gone=lambda ratio, width: round(ratio / 100 * width),
    ),
    *_broken(
        "none left",
        "Where the ratio is high, no neuron is left: nothing gets through such a layer.",
        gone=lambda ratio, width: round(ratio * width),
    ),
    _m(
        "order lost",
        "The neurons that stay are sorted by importance. They keep their order.",
        chosen=lambda scores, left: scores.argsort(stable=True)[len(scores) - left :],
    ),
    _m(
        "most important first",
        "The neurons that stay are sorted, the most important first. They keep their order.",
        chosen=lambda scores, left: scores.argsort(descending=True)[:left],
    ),
    _m(
        "first ones kept",
        "You keep the first neurons of the layer, whatever they matter.",
        chosen=lambda scores, left: torch.arange(left),
    ),
    _m(
        "last ones kept",
        "You keep the last neurons of the layer, whatever they matter.",
        chosen=lambda scores, left: torch.arange(len(scores) - left, len(scores)),
    ),
    _m("always l2", "You rank by l2 whatever importance was asked for.", by="l2"),
    _m("always l1", "You rank by l1 whatever importance was asked for.", by="l1"),
    _m(
        "ranked by what reads them",
        "You rank neurons by the weights with which the next layer reads them; their own were asked for.",
        score=_by_reader,
    ),
    _m("bias counted", "You count the bias in a neuron's importance.", score=_with_bias),
    Misconception(
        "prune_layer_neurons",
        "seed not passed on",
        "Your lots do not depend on the seed.",
        partial(_prune, seeded=False),
        reads=lambda case, answer: str(answer["model"]) == str(answer["again"]),
    ),
    _m(
        "activity on the examples",
        "You measure activity on example_inputs and not on the calibration samples.",
        calibrated_on="examples",
    ),
    _m(
        "neurons zeroed",
        "The neurons are set to zero and stay where they are: nothing gets smaller or faster.",
        only_zeros=True,
    ),
    *_broken(
        "next layer not cut",
        "The next layer still expects all neurons: its weights that read the removed ones are there.",
        reader=False,
    ),
    *_broken(
        "next layer cut at its outputs",
        "You cut the outputs of the next layer; what reads the removed neurons are its inputs.",
        reader_axis=0,
    ),
    *_broken(
        "batch norm not cut",
        "The batch norm after the layer still has a place for every neuron.",
        norms=(),
    ),
    *_broken(
        "running averages not cut",
        "Of the batch norm you cut scale and shift, and not the running averages.",
        norms=("weight", "bias"),
    ),
    *_broken(
        "scale and shift not cut",
        "Of the batch norm you cut the running averages, and not scale and shift.",
        norms=("running_mean", "running_var"),
    ),
    *_broken("bias not cut", "The biases of the removed neurons are still there.", bias=False),
    *_broken(
        "bias of the next layer cut",
        "You cut the bias of the next layer: it belongs to that layer's own neurons.",
        reader_bias=True,
    ),
    *_broken(
        "one place for each channel",
        "After a flatten one channel has several places in the next layer; you keep one for each.",
        places=lambda keep, each, width: keep,
    ),
    _m(
        "places of a channel strewn",
        "After a flatten the places of one channel lie side by side; you take every so many-th.",
        places=_strided,
    ),
    _m(
        "places of a channel interleaved",
        "After a flatten the places of one channel lie side by side; you take every so many-th.",
        places=_interleaved,
    ),
    _m(
        "batch norm begun anew",
        "Of the batch norm you keep scale and shift and begin mean and variance anew: what they had learned is gone.",
        norm_anew=True,
    ),
    _m(
        "first places of the batch norm",
        "Of the batch norm you keep the first places, and not those of the neurons that stay.",
        norm_places=lambda keep: torch.arange(len(keep)),
    ),
    _m(
        "first places kept",
        "You keep the first inputs of the next layer, and not those of the neurons that stay.",
        places=lambda keep, each, width: torch.arange(len(keep) * each),
    ),
    _m(
        "last places kept",
        "You keep the last inputs of the next layer, and not those of the neurons that stay.",
        places=lambda keep, each, width: torch.arange((width - len(keep)) * each, width * each),
    ),
    *(
        _m(name, says, _network, attributes=attributes)
        for name, says, attributes in (
            (
                "attributes not updated",
                "The tensors are smaller, and the layers' attributes still tell the old widths.",
                (),
            ),
            (
                "own width not updated",
                "The layer's own attribute still tells the old width.",
                ("norm", "reader"),
            ),
            (
                "norm's width not updated",
                "The batch norm's num_features still tells the old width.",
                ("own", "reader"),
            ),
            (
                "reader's width not updated",
                "The attribute of the next layer still tells how many neurons it read before.",
                ("own", "norm"),
            ),
            (
                "only its own width updated",
                "The attributes of the layers after it still tell the old widths.",
                ("own",),
            ),
        )
    ),
    *_broken(
        "last layer cut for the next",
        "You cut the inputs of the last layer; what reads the neurons is the next one.",
        read_by=lambda readers: readers[-1],
    ),
    *_broken(
        "every batch norm cut",
        "You cut every batch norm that comes later; only those before the next layer belong to these neurons.",
        every_norm=True,
    ),
    _m(
        "input changed",
        "You change the network that came in: whoever wants to compare before and after has lost the before.",
        lambda case, answer: [each["state"] for each in answer["input_after"]["layers"]],
        copied=False,
    ),
    _m(
        "removed instead of left",
        "Your change tells how many neurons went; before and after was promised.",
        lambda case, answer: answer["changes"],
        told=lambda was, now: (was, was - now),
    ),
    _m(
        "before and after swapped",
        "Your change swaps before and after.",
        lambda case, answer: answer["changes"],
        told=lambda was, now: (now, was),
    ),
    _m(
        "shares told",
        "Your change tells shares; numbers of neurons were promised.",
        lambda case, answer: answer["changes"],
        told=lambda was, now: (1.0, now / was),
    ),
    _m(
        "any ratio accepted",
        "You take a ratio outside 0 to 1: somebody who means 50 percent loses nearly everything.",
        any_ratio=True,
    ),
    _m(
        "any layer accepted",
        "You give the network back as it is where the layer does not exist or has no neurons.",
        any_layer=True,
    ),
    _m(
        "last layer cut",
        "You cut the last layer: its neurons are the classes, and some can no longer be told.",
        last_too=True,
    ),
)
