"""What removing neurons promises: smaller, the right ones, and everything that hung on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.importance import activity, importance
from tinypress_course.checks.judging import Judge, number, refuses, same, seen, short
from tinypress_course.checks.once import once
from tinypress_course.models import Plain, linear, network_from, random_network

PRUNE = "prune_layer_neurons"
_NEURONS = ("Linear", "Conv1d", "Conv2d")
_NORMS = ("BatchNorm1d", "BatchNorm2d")
Layers = list[tuple[str, nn.Module]]


def _case(model: Plain, inputs: Tensor, layer: str, ratio: Any, shown: str = "", **more: Plain) -> Case:
    names = ", ".join(each["name"] for each in model["layers"])
    options = "".join(f", {name}={value!r}" for name, value in more.items() if not isinstance(value, Tensor))
    given = {"model": model, "layer": layer, "ratio": ratio, "example_inputs": inputs, **more}
    return Case(given, f"{PRUNE}({shown or names}; {layer!r}, {ratio!r}{options})")


def _two(first: list[list[float]], bias: bool = False) -> Plain:
    """Two linear layers, the second of one output."""
    weight = torch.tensor(first)
    second = torch.arange(1.0, len(first) + 1)[None]
    biases = (torch.arange(len(first)) + 0.5, torch.tensor([0.25])) if bias else (None, None)
    layers = [linear(weight, biases[0], "fc1"), linear(second, biases[1], "fc2")]
    return {"layers": layers, "training": False}


def _deep(seed: int, width: int = 6) -> Plain:
    """Linear to Linear, with all that may stand between."""
    layers: Layers = [
        ("fc1", nn.Linear(4, width)),
        ("norm", nn.BatchNorm1d(width)),
        ("tanh", nn.Tanh()),
        ("drop", nn.Dropout(0.3)),
        ("fc2", nn.Linear(width, 5)),
        ("relu", nn.ReLU()),
        ("head", nn.Linear(5, 3)),
    ]
    return random_network(layers, seed)


def _signal(seed: int, width: int = 6) -> Plain:
    """Two convolutions over time, flattened into a head: one channel has three places there."""
    layers: Layers = [
        ("conv1", nn.Conv1d(2, width, 3, padding=1)),
        ("norm1", nn.BatchNorm1d(width)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv1d(width, 5, 3, stride=2, bias=False)),
        ("norm2", nn.BatchNorm1d(5)),
        ("relu2", nn.ReLU()),
        ("pool", nn.MaxPool1d(2)),
        ("flat", nn.Flatten()),
        ("head", nn.Linear(15, 3)),
    ]
    return random_network(layers, seed)


def _image(seed: int, width: int = 4) -> Plain:
    """A convolution over an image, averaged before the head: one channel has one place there."""
    layers: Layers = [
        ("conv", nn.Conv2d(1, width, 3)),
        ("norm", nn.BatchNorm2d(width)),
        ("relu", nn.ReLU()),
        ("average", nn.AdaptiveAvgPool2d(1)),
        ("flat", nn.Flatten()),
        ("head", nn.Linear(width, 3)),
    ]
    return random_network(layers, seed)


@once
def _networks(draw: Draw) -> Iterator[Case]:
    x = torch.tensor([[1.0, 2.0]])
    three = [[3.0, 1.0], [0.5, 0.0], [2.0, -2.0]]
    yield _case(_two(three), x, "fc1", 1 / 3, "fc1 [[3, 1], [0.5, 0], [2, -2]], fc2 [[1, 2, 3]]")
    yield _case(_two(three, bias=True), x, "fc1", 1 / 3, "fc1 [[3, 1], [0.5, 0], [2, -2]] with a bias, fc2")
    yield _case(_deep(draw.seed), draw.normal(3, 4), "fc1", 0.5)
    yield _case(_deep(draw.seed), draw.normal(3, 4), "fc2", 0.4)
    yield _case(_signal(draw.seed), draw.normal(2, 2, 14), "conv1", 0.5)
    yield _case(_signal(draw.seed), draw.normal(2, 2, 14), "conv2", 0.4)
    yield _case(_image(draw.seed), draw.normal(2, 1, 6, 6), "conv", 0.25)


@once
def _in_training(draw: Draw) -> Iterator[Case]:
    model = {**_deep(draw.seed), "training": True}
    yield _case(model, draw.normal(3, 4), "fc1", 0.5, "a network in training mode, with a batch norm")


@once
def _networks_hidden(draw: Draw) -> Iterator[Case]:
    more = draw.seed + 50
    yield _case(_deep(more, 9), draw.normal(3, 4, salt=1), "fc1", 0.7, "another network")
    yield _case(_signal(more, 8), draw.normal(2, 2, 14, salt=1), "conv1", 0.3, "another network")
    yield _case(_signal(more, 5), draw.normal(2, 2, 14, salt=2), "conv2", 0.6, "another network")
    yield _case(_image(more, 7), draw.normal(2, 1, 6, 6, salt=1), "conv", 0.5, "another network")


@once
def _counts(draw: Draw) -> Iterator[Case]:
    x = draw.normal(2, 3)
    for width, ratio in ((5, 0.3), (5, 0.5), (5, 0.45), (4, 0.2), (2, 0.9), (6, 0.99), (1, 0.5), (8, 0.05)):
        layers: Layers = [("fc1", nn.Linear(3, width)), ("relu", nn.ReLU()), ("fc2", nn.Linear(width, 2))]
        shown = f"fc1 with {width} neurons, relu, fc2"
        yield _case(random_network(layers, draw.seed), x, "fc1", ratio, shown)


@once
def _nothing(draw: Draw) -> Iterator[Case]:
    yield _case(_two([[3.0, 1.0], [0.5, 0.0]]), torch.tensor([[1.0, 2.0]]), "fc1", 0.0)
    yield _case(_signal(draw.seed), draw.normal(2, 2, 14), "conv2", 0)


def _by_methods(draw: Draw) -> Iterator[Case]:
    rows = [[2.0, 2.0, 2.0], [4.5, 0.1, 0.1], [5.0, 6.0, 7.0], [-6.0, 0.0, 1.0]]
    for method in ("l1", "l2", "variance"):
        yield _case(_two(rows), draw.normal(2, 3), "fc1", 0.25, importance=method)
    for method in ("l1", "variance"):
        yield _case(_signal(draw.seed), draw.normal(2, 2, 14), "conv2", 0.6, importance=method)


def _by_activity(draw: Draw) -> Iterator[Case]:
    model = _two([[0.0, -3.0], [0.0, 1.0], [5.0, 0.0], [-0.1, 3.0], [1.0, 4.0]])
    calibration = torch.tensor([[0.1, 2.0], [-0.1, -3.0]])
    shown = f"fc1 [[0, -3], [0, 1], [5, 0], [-0.1, 3], [1, 4]], fc2, calibration {short(calibration)}"
    yield _active(model, torch.tensor([[3.0, 0.1]]), 0.2, calibration, shown)
    shifted = linear(torch.eye(4), torch.tensor([0.0, 0.0, 4.0, -4.0]), "fc1")
    model = {"layers": [shifted, linear(draw.normal(2, 4), None, "fc2")], "training": False}
    yield _active(model, draw.normal(2, 4), 0.5, 0.5 * draw.normal(9, 4).clamp(-3, 3), "fc1, fc2")


def _active(model: Plain, inputs: Tensor, ratio: float, calibration: Tensor, shown: str) -> Case:
    return _case(model, inputs, "fc1", ratio, shown, importance="activation", calibration=calibration)


def _by_lot(draw: Draw) -> Iterator[Case]:
    layers: Layers = [("fc1", nn.Linear(3, 24)), ("fc2", nn.Linear(24, 2))]
    model = random_network(layers, draw.seed)
    for again in (1, 2):
        yield _case(model, draw.normal(2, 3), "fc1", 0.5, importance="random", seed=1, again=again)


def _weight(network: Plain, name: str) -> Tensor:
    weight: Tensor = next(each["state"]["weight"] for each in network["layers"] if each["name"] == name)
    return weight


def _kept(case: Case, answer: Answer) -> list[int]:
    """Which neurons are left, by their incoming weights, in the order in which they stand."""
    before, after = (_weight(net, case.inputs["layer"]) for net in (case.inputs["model"], answer["model"]))
    if before.shape[1:] != after.shape[1:]:
        raise ValueError(f"{case.inputs['layer']}.weight is {list(after.shape)}, of {list(before.shape)}")
    equal = (after.flatten(1)[:, None] == before.flatten(1)[None]).all(2)
    if not bool(equal.any(1).all()):
        raise ValueError(f"a neuron of {case.inputs['layer']} has weights that no neuron had before")
    return [row.tolist().index(True) for row in equal]


def _due(case: Case) -> int:
    width = len(_weight(case.inputs["model"], case.inputs["layer"]))
    return width - min(round(float(case.inputs["ratio"]) * width), width - 1)


def _runs(case: Case, answer: Answer) -> str | None:
    return None if "output" in answer else f"the network that came back does not run ({answer['broke']})"


def _number(case: Case, answer: Answer) -> str | None:
    left, due = len(_weight(answer["model"], case.inputs["layer"])), _due(case)
    before = len(_weight(case.inputs["model"], case.inputs["layer"]))
    return None if left == due else f"{left} of {before} neurons are left in {case.inputs['layer']}"


def _scores(case: Case) -> list[Tensor]:
    """The importance of each neuron; by activity, wherever it may be read before the next layer."""
    method = case.inputs.get("importance", "l2")
    if method != "activation":
        return [importance(_weight(case.inputs["model"], case.inputs["layer"]), method)]
    x, scores, inside = case.inputs["calibration"], [], False
    for name, layer in network_from(case.inputs["model"]).eval().named_children():
        if inside and isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Flatten):
            break
        with torch.no_grad():
            x = layer(x)
        inside = inside or name == case.inputs["layer"]
        scores += [activity(x)] if inside else []
    return scores


def _least(case: Case, answer: Answer) -> str | None:
    kept = _kept(case, answer)
    problems = [_one_less(scores, kept) for scores in _scores(case)]
    if None not in problems:
        return problems[0]
    return None if kept == sorted(set(kept)) else f"the neurons that stay stand in another order ({kept})"


def _one_less(scores: Tensor, kept: list[int]) -> str | None:
    gone = [at for at in range(len(scores)) if at not in kept]
    if not gone:
        return None
    least, most = min(kept, key=lambda at: float(scores[at])), max(gone, key=lambda at: float(scores[at]))
    if float(scores[most]) <= float(scores[least]) * (1 + 1e-6):
        return None
    return f"neuron {most} went, and neuron {least} stayed, which matters less"


def _lots(case: Case, answer: Answer) -> str | None:
    kept = _kept(case, answer)
    if kept != sorted(set(kept)):
        return f"the neurons that stay stand in another order ({kept})"
    if _one_less(importance(_weight(case.inputs["model"], "fc1"), "l2"), kept) is None:
        return "the neurons were chosen by their weights and not by lot"
    equal = kept == _kept(case, {**answer, "model": answer["again"]})
    if case.inputs["seed"] == case.inputs["again"]:
        return None if equal else "the same seed chooses other neurons"
    return "two seeds choose the same neurons" if equal else None


def _follows(case: Case) -> tuple[list[str], str]:
    """The batch norms after the layer, and the layer that reads it."""
    layers = case.inputs["model"]["layers"]
    start = [each["name"] for each in layers].index(case.inputs["layer"]) + 1
    end = next(at for at in range(start, len(layers)) if layers[at]["kind"] in _NEURONS)
    return [each["name"] for each in layers[start:end] if each["kind"] in _NORMS], layers[end]["name"]


def _with_it(case: Case, answer: Answer) -> str | None:
    """Whether every tensor is that of the neurons that stay, and no other was touched."""
    kept = _kept(case, answer)
    norms, reader = _follows(case)
    width = len(_weight(case.inputs["model"], case.inputs["layer"]))
    for old, new in zip(case.inputs["model"]["layers"], answer["model"]["layers"], strict=True):
        for name, before in old["state"].items():
            due = before
            if old["name"] == reader and name == "weight":
                each = before.shape[1] // width
                due = before[:, [at * each + place for at in kept for place in range(each)]]
            elif (old["name"] == case.inputs["layer"] or old["name"] in norms) and before.dim():
                due = before[kept]
            after = new["state"].get(name)
            if not isinstance(after, Tensor) or after.shape != due.shape:
                shape = list(after.shape) if isinstance(after, Tensor) else "gone"
                return f"{old['name']}.{name} is {shape}, and {len(kept)} of {width} neurons are left"
            if not same(after, due):
                return f"{old['name']}.{name} does not hold the values that belong to the neurons that stay"
    return None


def _computes(case: Case, answer: Answer) -> str | None:
    if "output" not in answer:
        return _runs(case, answer)
    kept = _kept(case, answer)
    norms, _ = _follows(case)
    last = norms[-1] if norms else case.inputs["layer"]
    x = case.inputs["example_inputs"]
    with torch.no_grad():
        for name, layer in network_from(case.inputs["model"]).eval().named_children():
            x = layer(x)
            if name == last:
                x[:, [at for at in range(x.shape[1]) if at not in kept]] = 0.0
    got = answer["output"]
    if got.shape != x.shape:
        return f"its output is {list(got.shape)}"
    off = float((got - x).abs().max())
    if off <= 1e-5 * float(x.abs().max().clamp(min=1e-3)):
        return None
    return f"its output is off by {number(off)} from that of the network whose removed neurons read as zero"


_WIDTHS = {
    "Linear": (("out_features", 0), ("in_features", 1)),
    "Conv1d": (("out_channels", 0), ("in_channels", 1)),
    "Conv2d": (("out_channels", 0), ("in_channels", 1)),
    "BatchNorm1d": (("num_features", 0),),
    "BatchNorm2d": (("num_features", 0),),
}


def _attributes(case: Case, answer: Answer) -> str | None:
    for each in answer["model"]["layers"]:
        for attribute, axis in _WIDTHS.get(each["kind"], ()):
            said, is_so = each["options"][attribute], each["state"]["weight"].shape[axis]
            if said != is_so:
                return f"{each['name']}.{attribute} says {said}, and its weight has {is_so}"
    return _number(case, answer)


def _untouched(case: Case, answer: Answer) -> str | None:
    before, after = case.inputs["model"]["layers"], answer["input_after"]["layers"]
    if same([each["state"] for each in before], [each["state"] for each in after]):
        return None
    return "the network that came in is not as it was"


def _told(case: Case, answer: Answer) -> str | None:
    layer = case.inputs["layer"]
    was, now = (len(_weight(net, layer)) for net in (case.inputs["model"], answer["model"]))
    widths = ("neurons", "out_features", "out_channels")  # the toolkit tells every width by its attribute
    told = [change[2:] for change in answer["changes"] if change[0] == layer and change[1] in widths]
    if [was, now] in told or (was == now and not told):
        return None
    if not told:
        return f"no change of the neurons of {layer!r} is told, but {answer['changes']}"
    return (
        f"it tells {told[0][0]} neurons before and {told[0][1]} after; there were {was}, and {now} are left"
    )


def _bad_ratios(draw: Draw) -> Iterator[Case]:
    for ratio in (1.0, 1, 1.2, 50, -0.1, math.nan, "0.5"):
        yield _case(_two([[3.0, 1.0], [0.5, 0.0]]), torch.tensor([[1.0, 2.0]]), "fc1", ratio)


def _bad_layers(draw: Draw) -> Iterator[Case]:
    for layer in ("fc9", "relu", "norm"):
        yield _case(_deep(draw.seed), draw.normal(2, 4), layer, 0.5)


def _last(draw: Draw) -> Iterator[Case]:
    yield _case(_two([[3.0, 1.0], [0.5, 0.0]]), torch.tensor([[1.0, 2.0]]), "fc2", 0.5)
    only = random_network([("fc1", nn.Linear(4, 3)), ("relu", nn.ReLU())], draw.seed)
    yield _case(only, draw.normal(2, 4), "fc1", 0.5)
    yield _case(_signal(draw.seed), draw.normal(2, 2, 14), "head", 0.5)


def _all(*judges: Judge) -> Judge:
    """The first thing that one of ``judges`` finds wrong."""
    return seen(lambda case, answer: next(filter(None, (judge(case, answer) for judge in judges)), None))


CHECKS = (
    Check(PRUNE, "gives back a network that runs", _networks, seen(_runs)),
    Check(PRUNE, "removes the promised number of neurons", _counts, seen(_number)),
    Check(PRUNE, "removes those that matter least, and keeps the order", _networks, seen(_least)),
    Check(PRUNE, "takes along everything that hangs on a neuron", _networks, seen(_with_it)),
    Check(PRUNE, "computes what the network computed with those neurons at zero", _networks, seen(_computes)),
    Check(
        PRUNE,
        "does so for other networks",
        _networks_hidden,
        _all(_runs, _number, _least, _with_it, _computes),
        hidden=True,
    ),
    Check(PRUNE, "takes along the same in training mode", _in_training, seen(_with_it)),
    Check(PRUNE, "changes nothing at ratio 0", _nothing, _all(_runs, _number, _with_it, _computes)),
    Check(PRUNE, "tells the new widths in the layers' attributes", _networks, seen(_attributes)),
    Check(PRUNE, "leaves the network that came in as it was", _networks, seen(_untouched)),
    Check(PRUNE, "tells the truth about what it removed", _counts, seen(_told)),
    Check(PRUNE, "ranks neurons by the importance that was asked for", _by_methods, seen(_least)),
    Check(PRUNE, "ranks them by their activity on the calibration samples", _by_activity, seen(_least)),
    Check(PRUNE, "draws lots that the seed fixes", _by_lot, seen(_lots)),
    Check(PRUNE, "refuses a ratio outside 0 <= ratio < 1", _bad_ratios, refuses()),
    Check(PRUNE, "refuses what is no layer with neurons", _bad_layers, refuses()),
    Check(PRUNE, "refuses the last layer", _last, refuses()),
)
