"""What the importance of neurons promises."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import close, number, refuses, seen, short
from tinypress_course.models import Plain, layer_data, linear

IMPORTANCE = "compute_neuron_importance"
WEIGHTS = ("l1", "l2", "variance")


def importance(weight: Tensor, method: str) -> Tensor:
    """What each neuron matters by its incoming weights [out, ...]: float64 [out]."""
    w = weight.double().flatten(1)
    if method == "l1":
        return w.abs().sum(1)
    return w.square().sum(1).sqrt() if method == "l2" else (w - w.mean(1, keepdim=True)).square().mean(1)


def activity(activations: Tensor) -> Tensor:
    """What each neuron matters by what it puts out, [N, out, ...]: float64 [out]."""
    return activations.double().abs().movedim(1, 0).flatten(1).mean(1)


def _case(layer: Plain, shown: str, method: str, **more: Plain) -> Case:
    return Case({"layer": layer, "method": method, **more}, f"{IMPORTANCE}({shown}, {method!r})")


def _linear(rows: list[list[float]], method: str) -> Case:
    weight = torch.tensor(rows)
    return _case(linear(weight), f"Linear {short(weight)}", method)


def _conv(draw: Draw, kind: type[nn.Conv1d | nn.Conv2d], outputs: int = 4, salt: int = 0) -> Plain:
    layer = kind(2, outputs, 3)
    shape = tuple(layer.weight.shape)
    layer.load_state_dict({"weight": draw.normal(*shape, salt=salt), "bias": draw.normal(outputs)})
    return layer_data(layer)


def _by_weights(draw: Draw) -> Iterator[Case]:
    for method in WEIGHTS:
        yield _linear([[3.0, -4.0]], method)
        yield _linear([[3.0, -4.0], [-1.0, -1.0], [2.0, 2.0]], method)
    for method in WEIGHTS:
        yield _case(linear(draw.normal(4, 7)), "Linear [4 x 7]", method)
        yield _case(_conv(draw, nn.Conv1d), "a Conv1d with 4 channels", method)
    yield _case(_conv(draw, nn.Conv2d, 3), "a Conv2d with 3 channels", "l2")


def _with_bias(draw: Draw) -> Iterator[Case]:
    for method in WEIGHTS:
        layer = linear(torch.tensor([[1.0, -2.0], [0.5, 1.0]]), torch.tensor([100.0, 0.0]))
        yield _case(layer, "Linear [[1, -2], [0.5, 1]] with the bias [100, 0]", method)


def _single(draw: Draw) -> Iterator[Case]:
    for method in WEIGHTS:
        yield _linear([[-2.0]], method)
        yield _linear([[0.0], [3.0]], method)


def _hidden(draw: Draw) -> Iterator[Case]:
    for salt, method in enumerate((*WEIGHTS, *WEIGHTS)):
        yield _case(linear(draw.normal(3 + salt, 5, salt=salt) + 0.3), "another Linear", method)
        yield _case(_conv(draw, nn.Conv1d, 5, salt), "another convolution", method)


def _by_activity(draw: Draw) -> Iterator[Case]:
    two = linear(torch.tensor([[9.0], [1.0]]))
    activations = torch.tensor([[1.0, -5.0], [-3.0, 5.0]])
    shown = f"Linear with 2 neurons, activations={short(activations)}"
    yield _case(two, shown, "activation", activations=activations)
    yield _active(draw, linear(draw.normal(3, 4)), (6, 3), 0)
    yield _active(draw, _conv(draw, nn.Conv1d), (5, 4, 7), 1)
    yield _active(draw, _conv(draw, nn.Conv2d), (2, 4, 3, 5), 2)


def _active(draw: Draw, layer: Plain, shape: tuple[int, ...], salt: int) -> Case:
    activations = draw.normal(*shape, salt=200 + salt) * (1 + draw.normal(shape[1]).abs()).view(
        1, -1, *[1] * (len(shape) - 2)
    )
    shown = f"{layer['kind']} with {shape[1]} neurons, activations=[{' x '.join(map(str, shape))}]"
    return _case(layer, shown, "activation", activations=activations)


def _by_activity_hidden(draw: Draw) -> Iterator[Case]:
    yield _active(draw, linear(draw.normal(6, 2)), (4, 6), 3)
    yield _active(draw, _conv(draw, nn.Conv1d, 3), (3, 3, 4), 4)


def _right(case: Case) -> Tensor:
    if case.inputs["method"] == "activation":
        return activity(case.inputs["activations"])
    return importance(case.inputs["layer"]["state"]["weight"], case.inputs["method"])


def _scores(case: Case, answer: Answer) -> str | None:
    due = _right(case)
    problem = _one_each(answer["importance"], len(due))
    if problem is not None:
        return problem
    got = answer["importance"].double()
    if close(got, due, 1e-5):
        return None
    at = int((got - due).abs().nan_to_num(math.inf).argmax())
    return f"neuron {at} gets {number(got[at].item())}"


def _one_each(given: Plain, width: int) -> str | None:
    if not isinstance(given, Tensor):
        return f"a {type(given).__name__} came back and no tensor"
    if list(given.shape) != [width]:
        return f"a tensor {list(given.shape)} came back for {width} neurons"
    return None


def _by_lot(draw: Draw) -> Iterator[Case]:
    for again in (7, 8):
        shown = f"Linear [32 x 2], seed=7, and again with seed={again}"
        yield _case(linear(draw.normal(32, 2)), shown, "random", seed=7, again=again)
    zero = _case(linear(draw.normal(32, 2)), "Linear [32 x 2], seed=0, and again with seed=0", "random")
    yield Case({**zero.inputs, "seed": 0, "again": 0}, zero.shown)
    one = _case(linear(torch.tensor([[2.0]])), "Linear [[2]], seed=1, and again with seed=1", "random")
    yield Case({**one.inputs, "seed": 1, "again": 1}, one.shown)


def _drawn(case: Case, answer: Answer) -> str | None:
    width = len(case.inputs["layer"]["state"]["weight"])
    first, second = answer["importance"], answer["again"]
    for given in (first, second):
        problem = _one_each(given, width)
        if problem is not None:
            return problem
        if not bool(((given >= 0) & (given <= 1)).all()):
            return "a random number is not between 0 and 1"
    same = torch.equal(first, second)
    if case.inputs["seed"] == case.inputs["again"]:
        return None if same else "the same seed gives other numbers"
    if same:
        return "two seeds give the same numbers"
    spread = len(set(first.tolist())) > width // 2 and float(first.double().std()) > 0.15
    return None if spread else f"{width} random numbers are nearly alike"


def _unknown(draw: Draw) -> Iterator[Case]:
    for method in ("l3", "L2", "weights"):
        yield _linear([[1.0, 2.0]], method)


def _no_neurons(draw: Draw) -> Iterator[Case]:
    for layer in (nn.ReLU(), nn.MaxPool1d(2), nn.BatchNorm1d(2)):
        for method in ("l2", "random") if isinstance(layer, nn.ReLU) else ("l2",):
            yield _case(layer_data(layer), f"a {type(layer).__name__}", method)


def _no_activations(draw: Draw) -> Iterator[Case]:
    yield _linear([[1.0, 2.0]], "activation")


def _nan(draw: Draw) -> Iterator[Case]:
    for method in WEIGHTS:
        yield _linear([[1.0, math.nan], [1.0, 2.0]], method)
    broken = torch.tensor([[1.0, math.nan], [0.0, 1.0]])
    two = linear(torch.ones(2, 1))
    yield _case(two, "Linear with 2 neurons, activations with a NaN", "activation", activations=broken)


_SCORES = seen(_scores)
CHECKS = (
    Check(IMPORTANCE, "measures the weights that come into each neuron", _by_weights, _SCORES),
    Check(IMPORTANCE, "does not count the bias", _with_bias, _SCORES),
    Check(IMPORTANCE, "stands single neurons, single weights and zeros", _single, _SCORES),
    Check(IMPORTANCE, "does so for other layers", _hidden, _SCORES, hidden=True),
    Check(IMPORTANCE, "measures how active each neuron is", _by_activity, _SCORES),
    Check(IMPORTANCE, "does so for other activations", _by_activity_hidden, _SCORES, hidden=True),
    Check(IMPORTANCE, "draws lots that the seed fixes", _by_lot, seen(_drawn)),
    Check(IMPORTANCE, "refuses another method", _unknown, refuses()),
    Check(IMPORTANCE, "refuses a layer without neurons", _no_neurons, refuses()),
    Check(IMPORTANCE, "refuses to guess activations", _no_activations, refuses()),
    Check(IMPORTANCE, "refuses NaN", _nan, refuses()),
)
