"""What sparsity and magnitude pruning promise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tinypress import calculate_sparsity
from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import close, number, refuses, same, seen, short
from tinypress_course.models import Plain, layer_data, linear, network_from, random_network

SMALL = torch.tensor([[3.0, -1.0]])


def _conv(draw: Draw, outputs: int = 4, salt: int = 0) -> Plain:
    layer = nn.Conv1d(3, outputs, 3)
    weight, bias = draw.normal(outputs, 3, 3, salt=salt), draw.normal(outputs, salt=salt + 1)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer_data(layer)


def _net(seed: int, hidden: int = 6) -> Plain:
    return random_network(
        [
            ("conv", nn.Conv1d(3, hidden, 3)),
            ("norm", nn.BatchNorm1d(hidden)),
            ("relu", nn.ReLU()),
            ("flat", nn.Flatten()),
            ("head", nn.Linear(hidden * 2, 3)),
        ],
        seed,
    )


def _sparse(draw: Draw) -> Iterator[Case]:
    yield Case({"of": torch.tensor([0.0, 2.0, 0.0, 1.0])}, "calculate_sparsity([0, 2, 0, 1])")
    yield Case({"of": torch.tensor([0.0, -0.0, 1e-8])}, "calculate_sparsity([0, -0, 0.00000001])")
    yield Case({"of": torch.zeros(0)}, "calculate_sparsity(an empty tensor)")
    yield Case({"of": torch.zeros(2, 3)}, "calculate_sparsity(six zeros)")
    layer = linear(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([0.0]))
    yield Case({"of": layer}, "calculate_sparsity(Linear [[0, 1, 2]] with the bias [0])")
    network = _net(draw.seed)
    network["layers"][0]["state"]["weight"][0] = 0.0
    network["layers"][1]["state"]["weight"][:] = 0.0
    network["layers"][4]["state"]["weight"][:, ::2] = 0.0
    yield Case({"of": network}, "calculate_sparsity(a network with some zeros, also in a batch norm)")
    words = random_network([("words", nn.Embedding(4, 3)), ("head", nn.Linear(3, 2))], draw.seed)
    words["layers"][0]["state"]["weight"][0] = 0.0
    yield Case({"of": words}, "calculate_sparsity(an Embedding with some zeros, and a Linear)")
    deep = random_network([("block", nn.Sequential(nn.Linear(3, 3))), ("head", nn.Linear(3, 2))], draw.seed)
    deep["layers"][0]["layers"][0]["state"]["weight"][0] = 0.0
    yield Case({"of": deep}, "calculate_sparsity(a Linear inside a block with some zeros, and another)")


def _sparse_hidden(draw: Draw) -> Iterator[Case]:
    for salt in range(3):
        values = draw.normal(7 + salt, 11, salt=salt)
        yield Case({"of": values.masked_fill(values < 0.3 * salt, 0.0)}, "calculate_sparsity(another tensor)")


def _fraction(case: Case, answer: Answer) -> str | None:
    given = case.inputs["of"]
    right = calculate_sparsity(given if isinstance(given, Tensor) else network_from(given))
    if close(answer["sparsity"], right, 1e-9):
        return None
    return f"it gives {number(answer['sparsity'])}, which is not the fraction of exact zeros"


def _no_tensor(draw: Draw) -> Iterator[Case]:
    yield Case({"of": "weights"}, "calculate_sparsity('weights')")
    yield Case({"of": 0.5}, "calculate_sparsity(0.5)")


def _pruning(draw: Draw) -> Iterator[Case]:
    yield Case({"layer": linear(SMALL), "sparsity": 0.5}, "prune_weights_by_magnitude(Linear [[3, -1]], 0.5)")
    row = torch.tensor([[5.0, -4.0, 0.5, -0.25, 2.0, 1.0]])
    for sparsity in (0.25, 0.75, 0.4):  # round(1.5), round(4.5), round(2.4)
        shown = f"prune_weights_by_magnitude(Linear {short(row)}, {sparsity})"
        yield Case({"layer": linear(row, torch.tensor([0.01])), "sparsity": sparsity}, shown)
    yield Case(
        {"layer": _conv(draw), "sparsity": 0.7}, "prune_weights_by_magnitude(a Conv1d with 36 weights, 0.7)"
    )
    yield Case(
        {"layer": linear(draw.normal(17, 13)), "sparsity": 0.9},
        "prune_weights_by_magnitude(Linear [17 x 13], 0.9)",
    )


def _pruning_hidden(draw: Draw) -> Iterator[Case]:
    for salt, sparsity in enumerate((0.11, 0.335, 0.5, 0.817)):
        layer = linear(draw.normal(5 + salt, 19, salt=salt), draw.normal(5 + salt, salt=99))
        yield Case(
            {"layer": layer, "sparsity": sparsity}, f"prune_weights_by_magnitude(another layer, {sparsity})"
        )
    yield Case(
        {"layer": _conv(draw, 9, 7), "sparsity": 0.6}, "prune_weights_by_magnitude(another convolution, 0.6)"
    )


def _pruning_ends(draw: Draw) -> Iterator[Case]:
    for sparsity in (0.0, 1.0, 0, 1):
        shown = f"prune_weights_by_magnitude(Linear [[3, -1]], {sparsity})"
        yield Case({"layer": linear(SMALL), "sparsity": sparsity}, shown)
    for sparsity in (0.0, 1.0):
        one = linear(torch.tensor([[2.0]]))
        yield Case(
            {"layer": one, "sparsity": sparsity}, f"prune_weights_by_magnitude(Linear [[2]], {sparsity})"
        )


def _ties(draw: Draw) -> Iterator[Case]:
    equal = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    yield Case(
        {"layer": linear(equal), "sparsity": 0.5}, "prune_weights_by_magnitude(Linear [[1, -1, 1, -1]], 0.5)"
    )
    zeros = torch.tensor([[0.0, 3.0, 0.0, 2.0, 1.0, 4.0]])
    for sparsity in (0.5, 0.8):
        shown = f"prune_weights_by_magnitude(Linear {short(zeros)}, {sparsity})"
        yield Case({"layer": linear(zeros), "sparsity": sparsity}, shown)
    flat = linear(torch.full((3, 5), 0.1))
    yield Case({"layer": flat, "sparsity": 0.6}, "prune_weights_by_magnitude(15 weights, all 0.1, 0.6)")


def _pruned_right(case: Case, answer: Answer) -> str | None:
    before, after = case.inputs["layer"], answer["layer"]
    problem = _smallest_gone(before["state"]["weight"], after["state"]["weight"], case.inputs["sparsity"])
    if problem is not None:
        return problem
    if after["kind"] != before["kind"] or after["state"].keys() != before["state"].keys():
        return f"a {after['kind']} came back, with {sorted(after['state'])}"
    if "bias" in before["state"] and not same(before["state"]["bias"], after["state"]["bias"]):
        return "the bias was changed"
    return None


def _smallest_gone(before: Tensor, after: Tensor, sparsity: float) -> str | None:
    """What is wrong with ``after`` as ``before`` without its smallest weights; any choice among equals is right."""
    if after.shape != before.shape or after.dtype != before.dtype:
        return f"the weights came back as {after.dtype} {list(after.shape)}"
    kept = after != 0
    if not torch.equal(after[kept], before[kept]):
        return "a weight that was kept has another value than before"
    due = max(round(sparsity * before.numel()), int((before == 0).sum()))
    gone = int((~kept).sum())
    if gone != due:
        return f"{gone} of {before.numel()} weights are zero: {short(before, 6)} became {short(after, 6)}"
    if gone and bool(kept.any()) and before[~kept].abs().max() > before[kept].abs().min():
        return (
            f"a weight of magnitude {number(before[~kept].abs().max().item())} was pruned and one of "
            f"{number(before[kept].abs().min().item())} was kept"
        )
    return None


def _told(case: Case, answer: Answer) -> str | None:
    before, after = case.inputs["layer"]["state"]["weight"], answer["layer"]["state"]["weight"]
    was, now = ((t == 0).double().mean().item() for t in (before, after))
    if len(answer["changes"]) != 1:
        return f"it tells {len(answer['changes'])} changes; one was promised"
    layer, what, told_was, told_now = answer["changes"][0]
    if (layer, what) != ("", "sparsity"):
        return f"the change is of {what!r} in layer {layer!r}"
    if not (close(told_was, was, 1e-9) and close(told_now, now, 1e-9)):
        return (
            f"it tells a sparsity of {number(told_was)} before and {number(told_now)} after; the tensors say "
            f"{number(was)} and {number(now)}"
        )
    return None if answer["pruned"] == ["weight"] else f"pruned is {answer['pruned']}"


def _telling(draw: Draw) -> Iterator[Case]:
    three = linear(torch.tensor([[0.0, 1.0, -2.0]]))
    yield Case({"layer": three, "sparsity": 0.5}, "prune_weights_by_magnitude(Linear [[0, 1, -2]], 0.5)")
    yield Case({"layer": _conv(draw), "sparsity": 0.33}, "prune_weights_by_magnitude(a Conv1d, 0.33)")


def _untouched(case: Case, answer: Answer) -> str | None:
    before = case.inputs["layer"]
    if answer["same_object"] or not same(answer["input_after"]["state"], before["state"]):
        return "the layer that came in is not as it was"
    return None


def _bad_fractions(function: str, argument: str, given: Any) -> Any:
    def cases(draw: Draw) -> Iterator[Case]:
        for sparsity in (50, 1.2, -0.1, math.nan, "0.5"):
            yield Case({argument: given(draw), "sparsity": sparsity}, f"{function}(..., {sparsity!r})")

    return cases


def _fraction_refused(case: Case, answer: Answer) -> str | None:
    value = case.inputs["sparsity"]
    return refuses(str(value))(case, answer)


def _nan_layers(draw: Draw) -> Iterator[Case]:
    for value in (math.nan, math.inf):
        broken = linear(torch.tensor([[1.0, value]]))
        yield Case(
            {"layer": broken, "sparsity": 0.5}, f"prune_weights_by_magnitude(Linear [[1, {value}]], 0.5)"
        )


def _no_layers(draw: Draw) -> Iterator[Case]:
    yield Case({"layer": "fc1", "sparsity": 0.5}, "prune_weights_by_magnitude('fc1', 0.5)")
    yield Case({"layer": layer_data(nn.ReLU()), "sparsity": 0.5}, "prune_weights_by_magnitude(a ReLU, 0.5)")


def _two_layers(first: Tensor, second: Tensor) -> Plain:
    layers = [linear(first, torch.zeros(len(first)), "fc1"), linear(second, torch.zeros(len(second)), "fc2")]
    return {"layers": layers, "training": False}


def _models(draw: Draw) -> Iterator[Case]:
    small = _two_layers(torch.tensor([[1.0], [2.0]]), torch.tensor([[30.0, 40.0]]))
    for scope in ("global", "layer"):
        shown = f"prune_model_by_magnitude(fc1 [[1], [2]], fc2 [[30, 40]], 0.5, scope={scope!r})"
        yield Case({"model": small, "sparsity": 0.5, "scope": scope}, shown)
    yield Case(
        {"model": small, "sparsity": 0.5}, "prune_model_by_magnitude(fc1 [[1], [2]], fc2 [[30, 40]], 0.5)"
    )
    for scope, sparsity in (
        ("global", 0.7),
        ("layer", 0.7),
        ("layer", 0.55),
        ("global", 1.0),
        ("layer", 0.0),
    ):
        given = {"model": _net(draw.seed), "sparsity": sparsity, "scope": scope}
        yield Case(given, f"prune_model_by_magnitude(conv, norm, head, {sparsity}, scope={scope!r})")


def _pruned_before(draw: Draw) -> Iterator[Case]:
    once = _two_layers(torch.tensor([[0.0], [2.0]]), torch.tensor([[30.0, 40.0]]))
    shown = "prune_model_by_magnitude(fc1 [[0], [2]], fc2 [[30, 40]], 0.5)"
    yield Case({"model": once, "sparsity": 0.5}, shown)
    late = {
        **once,
        "layers": [{**each, "name": name} for each, name in zip(once["layers"], "ba", strict=True)],
    }
    yield Case({"model": late, "sparsity": 0.5}, "prune_model_by_magnitude(b [[0], [2]], a [[30, 40]], 0.5)")
    yield from _models(draw)


def _models_hidden(draw: Draw) -> Iterator[Case]:
    for salt, (scope, sparsity) in enumerate((("global", 0.35), ("layer", 0.9), ("global", 0.95))):
        given = {"model": _net(draw.seed + salt, 5 + salt), "sparsity": sparsity, "scope": scope}
        yield Case(given, f"prune_model_by_magnitude(another network, {sparsity}, scope={scope!r})")


def _weights(network: Plain) -> dict[str, Tensor]:
    kinds = ("Linear", "Conv1d", "Conv2d")
    return {each["name"]: each["state"]["weight"] for each in network["layers"] if each["kind"] in kinds}


def _model_right(case: Case, answer: Answer) -> str | None:
    before, after = _weights(case.inputs["model"]), _weights(answer["model"])
    if before.keys() != after.keys():
        return f"the network that came back has the layers {sorted(after)}"
    together = case.inputs.get("scope", "global") == "global"
    pairs = {name: (before[name], after[name]) for name in before}
    if together:
        rows = (torch.cat([t.flatten() for t in which.values()]) for which in (before, after))
        pairs = {"all weights together": (next(rows), next(rows))}
    for name, (was, now) in pairs.items():
        problem = _smallest_gone(was, now, case.inputs["sparsity"])
        if problem is not None:
            return f"{name}: {problem}"
    return _rest_untouched(case, answer)


def _rest_untouched(case: Case, answer: Answer) -> str | None:
    for old, new in zip(case.inputs["model"]["layers"], answer["model"]["layers"], strict=True):
        for name, value in old["state"].items():
            pruned = name == "weight" and old["kind"] in ("Linear", "Conv1d", "Conv2d")
            if not pruned and not same(value, new["state"][name]):
                return f"{old['name']}.{name} was changed, which is no weight to prune"
    return None


def _model_told(case: Case, answer: Answer) -> str | None:
    before, after = _weights(case.inputs["model"]), _weights(answer["model"])
    if [change[:2] for change in answer["changes"]] != [[name, "sparsity"] for name in before]:
        return f"the changes are of {[change[:2] for change in answer['changes']]}; one for each layer was promised"
    for name, _, was, now in answer["changes"]:
        true = [(t[name] == 0).double().mean().item() for t in (before, after)]
        if not (close(was, true[0], 1e-9) and close(now, true[1], 1e-9)):
            return (
                f"{name}: it tells {number(was)} and {number(now)}; the tensors say {number(true[0])} "
                f"and {number(true[1])}"
            )
    due = sorted(f"{name}.weight" for name in before)
    return None if answer["pruned"] == due else f"pruned is {answer['pruned']}"


def _model_untouched(case: Case, answer: Answer) -> str | None:
    before = [layer["state"] for layer in case.inputs["model"]["layers"]]
    if not same(before, [layer["state"] for layer in answer["input_after"]["layers"]]):
        return "the network that came in is not as it was"
    return None


def _bad_models(draw: Draw) -> Iterator[Case]:
    relu = random_network([("relu", nn.ReLU())], 0)
    yield Case(
        {"model": relu, "sparsity": 0.5}, "prune_model_by_magnitude(a network with nothing but a ReLU, 0.5)"
    )
    yield Case({"model": "net.pt", "sparsity": 0.5}, "prune_model_by_magnitude('net.pt', 0.5)")
    broken = _two_layers(torch.tensor([[1.0], [math.nan]]), torch.ones(1, 2))
    yield Case({"model": broken, "sparsity": 0.5}, "prune_model_by_magnitude(a network with a NaN, 0.5)")


def _bad_scope(draw: Draw) -> Iterator[Case]:
    given = {"model": _net(draw.seed), "sparsity": 0.5, "scope": "everything"}
    yield Case(given, "prune_model_by_magnitude(..., 0.5, scope='everything')")


LAYER, MODEL = "prune_weights_by_magnitude", "prune_model_by_magnitude"
CHECKS = (
    Check("calculate_sparsity", "gives the fraction of exact zeros", _sparse, seen(_fraction)),
    Check("calculate_sparsity", "gives that of other tensors", _sparse_hidden, seen(_fraction), hidden=True),
    Check("calculate_sparsity", "refuses what is neither module nor tensor", _no_tensor, refuses()),
    Check(
        LAYER,
        "sets exactly the promised number of the smallest weights to zero",
        _pruning,
        seen(_pruned_right),
    ),
    Check(LAYER, "does so for other layers", _pruning_hidden, seen(_pruned_right), hidden=True),
    Check(LAYER, "does nothing at sparsity 0 and everything at 1", _pruning_ends, seen(_pruned_right)),
    Check(LAYER, "keeps to the number among equal weights and zeros", _ties, seen(_pruned_right)),
    Check(LAYER, "leaves the layer that came in as it was", _pruning, seen(_untouched)),
    Check(LAYER, "tells the truth about what it changed", _telling, seen(_told)),
    Check(
        LAYER,
        "refuses what is no fraction",
        _bad_fractions(LAYER, "layer", lambda d: linear(SMALL)),
        _fraction_refused,
    ),
    Check(LAYER, "refuses NaN and infinity", _nan_layers, refuses()),
    Check(LAYER, "refuses what has no weight", _no_layers, refuses()),
    Check(MODEL, "ranks all layers together, or each on its own", _models, seen(_model_right)),
    Check(MODEL, "does so for other networks", _models_hidden, seen(_model_right), hidden=True),
    Check(MODEL, "leaves the network that came in as it was", _models, seen(_model_untouched)),
    Check(MODEL, "tells the truth about every layer", _pruned_before, seen(_model_told)),
    Check(
        MODEL,
        "refuses what is no fraction",
        _bad_fractions(MODEL, "model", lambda d: _net(d.seed)),
        _fraction_refused,
    ),
    Check(MODEL, "refuses another scope", _bad_scope, refuses("everything")),
    Check(MODEL, "refuses NaN and networks without weights", _bad_models, refuses()),
)
