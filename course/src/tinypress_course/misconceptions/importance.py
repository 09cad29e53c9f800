"""Mistakes that people make about how much a neuron matters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinypress_course.checks.base import Answer, Case
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.models import Plain

Score = Callable[[Tensor], Tensor]
_NEURONS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def _l1(w: Tensor) -> Tensor:
    return w.abs().sum(1)


def _l2(w: Tensor) -> Tensor:
    return w.square().sum(1).sqrt()


def _variance(w: Tensor) -> Tensor:
    return (w - w.mean(1, keepdim=True)).square().mean(1)


def _activity(activations: Tensor) -> Tensor:
    return activations.abs().movedim(1, 0).flatten(1).mean(1)


def _per_neuron(score: Score) -> Score:
    """``score`` of all that each neuron put out, [out, samples * positions]."""
    return lambda activations: score(activations.movedim(1, 0).flatten(1))


def _flat(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def _lots(width: int, seed: int) -> Tensor:
    return torch.rand(width, generator=torch.Generator().manual_seed(seed))


def _importance(
    layer: nn.Module,
    method: str = "l2",
    *,
    activations: Tensor | None = None,
    seed: int = 0,
    l1: Score = _l1,
    l2: Score = _l2,
    variance: Score = _variance,
    activation: Score = _activity,
    lots: Callable[[int, int], Tensor] = _lots,
    rows: Callable[[Tensor], Tensor] = _flat,
    bias: bool = False,
    after: Callable[[Tensor], Tensor] = lambda importance: importance,
    otherwise: str | None = None,
    kinds: tuple[type[nn.Module], ...] = _NEURONS,
    without_activations: str | None = None,
    missing_unnoticed: bool = False,
    any_nan: bool = False,
) -> Tensor:
    """Importance with places for mistakes; with none of them it agrees with the statement."""
    if not isinstance(layer, kinds):
        raise ValueError("no layer with neurons")
    by_weights = {"l1": l1, "l2": l2, "variance": variance}
    if method not in (*by_weights, "activation", "random"):
        if otherwise is None:
            raise ValueError(f"no method {method}")
        method = otherwise
    weight: Tensor = layer.weight.detach().double()  # type: ignore[operator]
    if method == "activation" and activations is None and not missing_unnoticed:
        if without_activations is None:
            raise ValueError("no activations")
        method = without_activations
    if method == "random":
        importance = lots(len(weight), seed)
    elif method == "activation":
        importance = activation(activations.detach().double())  # type: ignore[union-attr]
    else:
        w = rows(weight)
        if bias and isinstance(layer.bias, Tensor):
            w = torch.cat([w, layer.bias.detach().double()[:, None]], 1)
        importance = by_weights[method](w)
    if not any_nan and not bool(torch.isfinite(importance).all()):
        raise ValueError("a weight is NaN")
    return after(importance.float())


def _m(name: str, says: str, reads: Any = None, **mistake: Any) -> Misconception:
    implementation = partial(_importance, **mistake)
    return Misconception("compute_neuron_importance", name, says, implementation, ("importance",), reads)


def _lot_findings(case: Case, answer: Answer) -> Plain:
    """What can be told of random numbers, which are everybody's own."""
    first = answer["importance"]
    if case.inputs["method"] != "random":
        return "no lots"
    inside = bool(((first >= 0) & (first <= 1)).all())
    whole = bool((first == first.round()).all())
    return [
        list(first.shape),
        inside,
        whole,
        torch.equal(first, answer["again"]) if "again" in answer else None,
    ]


MISCONCEPTIONS: tuple[Misconception, ...] = (
    _m(
        "root missing",
        "You leave the root away: l2 is a length, not its square.",
        l2=lambda w: w.square().sum(1),
    ),
    _m(
        "l2 averaged",
        "You average the squares; l2 adds them up.",
        l2=lambda w: w.square().mean(1).sqrt(),
    ),
    _m("l1 averaged", "You average the magnitudes; l1 adds them up.", l1=lambda w: w.abs().mean(1)),
    _m(
        "magnitude missing",
        "You add the weights with their sign: what is positive and what is negative cancel each other.",
        l1=lambda w: w.sum(1),
    ),
    _m(
        "magnitude of the sum",
        "You take the magnitude after adding up: what is positive and what is negative have cancelled each other.",
        l1=lambda w: w.sum(1).abs(),
    ),
    _m("largest weight", "You take a neuron's largest weight for all of them.", l1=lambda w: w.abs().amax(1)),
    _m("largest weight for l2", "You take a neuron's largest weight for l2.", l2=lambda w: w.abs().amax(1)),
    _m("l1 for l2", "Your l2 adds magnitudes up: that is l1.", l2=_l1),
    _m("l2 for l1", "Your l1 is the length of the weights: that is l2.", l1=_l2),
    _m("l1 and l2 swapped", "You have l1 and l2 the wrong way round.", l1=_l2, l2=_l1),
    _m("always l2", "You compute l2 whatever method was asked for.", l1=_l2, variance=_l2, otherwise="l2"),
    _m("always l1", "You compute l1 whatever method was asked for.", l2=_l1, variance=_l1, otherwise="l1"),
    _m(
        "variance of a sample",
        "You divide the variance by one less than the number of weights, as for a sample; here all weights are there.",
        variance=lambda w: w.var(1),
        any_nan=True,
    ),
    _m(
        "variance of a sample, refused",
        "You divide the variance by one less than the number of weights, as for a sample; here all weights are there.",
        variance=lambda w: w.var(1),
    ),
    _m(
        "deviation for variance",
        "You give the standard deviation: that is the root of what was promised.",
        variance=lambda w: w.std(1, correction=0),
    ),
    _m(
        "deviation of a sample",
        "You give the standard deviation of a sample; the variance of all weights was promised.",
        variance=lambda w: w.std(1),
        any_nan=True,
    ),
    _m(
        "variance not averaged",
        "Your variance adds the squared distances up; they were to be averaged.",
        variance=lambda w: (w - w.mean(1, keepdim=True)).square().sum(1),
    ),
    _m(
        "mean not taken off",
        "Your variance is the mean of the squares: the mean is not taken off first.",
        variance=lambda w: w.square().mean(1),
    ),
    _m(
        "mean of the layer",
        "Your variance takes off the mean of the whole layer; each neuron has its own.",
        variance=lambda w: (w - w.mean()).square().mean(1),
    ),
    _m(
        "distance for its square",
        "Your variance is a mean distance: the squares are missing.",
        variance=lambda w: (w - w.mean(1, keepdim=True)).abs().mean(1),
    ),
    _m(
        "inputs instead of neurons",
        "You measure along the wrong axis: one number for each input, not for each neuron.",
        rows=lambda weight: weight.transpose(0, 1).flatten(1),
    ),
    _m(
        "inputs instead of neurons",
        "You measure along the wrong axis: one number for each input, not for each neuron.",
        rows=lambda weight: weight.flatten(1).T,
    ),
    _m(
        "kernels on their own",
        "Of a convolution you measure along one axis: all weights that come into a neuron count together.",
        rows=lambda weight: weight,
    ),
    _m(
        "kernels added up",
        "You add up over the kernel's places before you measure: what cancels there is lost.",
        rows=lambda weight: weight.flatten(2).sum(2) if weight.ndim > 2 else weight,
    ),
    _m("bias counted", "The bias is counted with the weights; it should not count.", bias=True),
    _m(
        "shares",
        "You divide by the total: shares came back, and not what was promised.",
        after=lambda importance: importance / importance.sum(),
    ),
    _m(
        "scaled to the largest",
        "You divide by the largest: the most important neuron always gets 1.",
        after=lambda importance: importance / importance.max(),
    ),
    _m(
        "ranks",
        "You give the neurons' order; a measure for each neuron was promised.",
        after=lambda importance: importance.argsort(),
    ),
    _m(
        "magnitude of activations missing",
        "You average what a neuron puts out with its sign: one that swings far to both sides seems to do nothing.",
        activation=_per_neuron(lambda a: a.mean(1)),
    ),
    _m(
        "magnitude after averaging activations",
        "You take the magnitude after averaging: what a neuron puts out to both sides has cancelled.",
        activation=_per_neuron(lambda a: a.mean(1).abs()),
    ),
    _m(
        "activations added up",
        "You add activations up; they were to be averaged over samples and positions.",
        activation=_per_neuron(lambda a: a.abs().sum(1)),
    ),
    _m(
        "positions added up",
        "You average over samples, and add up over positions.",
        activation=lambda a: a.abs().mean(0).flatten(1).sum(1) if a.ndim > 2 else a.abs().mean(0),
    ),
    _m(
        "positions kept",
        "You average over the samples alone: a convolution then has a number for each position, not for each neuron.",
        activation=lambda a: a.abs().mean(0),
    ),
    _m(
        "activations of each sample",
        "You average over the wrong axis of the activations: one number for each sample, not for each neuron.",
        activation=lambda a: a.abs().flatten(1).mean(1),
    ),
    _m(
        "last axis taken for neurons",
        "You take the last axis of the activations for the neurons; of a convolution's it holds the positions.",
        activation=lambda a: a.abs().flatten(0, -2).mean(0),
    ),
    _m(
        "activations squared",
        "You average the squares of activations; their magnitudes were promised.",
        activation=_per_neuron(lambda a: a.square().mean(1)),
    ),
    _m(
        "root of squared activations",
        "You take the root of the mean square of activations; the mean magnitude was promised.",
        activation=_per_neuron(lambda a: a.square().mean(1).sqrt()),
    ),
    _m(
        "length of activations",
        "You take the length of all activations of a neuron; their mean magnitude was promised.",
        activation=_per_neuron(lambda a: a.square().sum(1).sqrt()),
    ),
    _m(
        "largest activation",
        "You take a neuron's largest activation; their mean magnitude was promised.",
        activation=_per_neuron(lambda a: a.abs().amax(1)),
    ),
    _m(
        "positive activations",
        "Only positive activations count; a neuron that puts out large negative numbers is at work too.",
        activation=_per_neuron(lambda a: a.relu().mean(1)),
    ),
    _m(
        "share of active samples",
        "You count how often a neuron is above zero; how much it puts out was promised.",
        activation=_per_neuron(lambda a: (a > 0).double().mean(1)),
    ),
    _m(
        "variance of activations",
        "You give the variance of activations; their mean magnitude was promised.",
        activation=_per_neuron(lambda a: a.var(1, correction=0)),
    ),
    _m(
        "lots without a seed",
        "Your random numbers ignore the seed: every call gives others.",
        _lot_findings,
        lots=lambda width, seed: torch.rand(width),
    ),
    _m(
        "one seed for all",
        "Your random numbers ignore the seed: every seed gives the same.",
        _lot_findings,
        lots=lambda width, seed: _lots(width, 0),
    ),
    _m(
        "normal numbers",
        "Your random numbers are not uniform: some lie outside 0 to 1.",
        _lot_findings,
        lots=lambda width, seed: torch.randn(width, generator=torch.Generator().manual_seed(seed)),
    ),
    _m(
        "a random order",
        "You give a random order of the neurons; uniform numbers were promised.",
        _lot_findings,
        lots=lambda width, seed: torch.randperm(width, generator=torch.Generator().manual_seed(seed)),
    ),
    _m(
        "one lot for all",
        "You draw one random number and give it to every neuron.",
        _lot_findings,
        lots=lambda width, seed: _lots(1, seed).expand(width),
    ),
    _m("any method", "You take any method, and quietly use another.", otherwise="l2"),
    _m(
        "any layer",
        "You take layers that have no neurons of their own.",
        kinds=(nn.Module,),
    ),
    _m(
        "anything with a weight",
        "You take anything that has a weight: a batch norm has one, and no neurons.",
        kinds=(*_NEURONS, nn.BatchNorm1d, nn.BatchNorm2d),
        rows=lambda weight: weight.reshape(len(weight), -1),
    ),
    _m(
        "weights for missing activations",
        "Where activations are missing you quietly measure weights.",
        without_activations="l2",
    ),
    _m(
        "missing activations not noticed",
        "You do not notice that activations are missing, and fail at the first thing that you do with them.",
        missing_unnoticed=True,
    ),
    _m("NaN accepted", "You rank neurons by NaN, which compares with nothing.", any_nan=True),
)
