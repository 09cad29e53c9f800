"""What the three questions about a network's size promise."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tinypress import CompressionMetrics
from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import close, number, refuses, seen
from tinypress_course.models import Plain, linear, network_data, network_from, random_network

NAN = float("nan")
ONCE = "counts a tensor that two layers share once, with the first"


def _net(*layers: Plain) -> Plain:
    return {"layers": list(layers), "training": False}


def _small(bias: bool = False) -> Plain:
    return _net(linear(torch.tensor([[1.0, -2.0]]), torch.tensor([3.0]) if bias else None, name="fc"))


def _mixed(seed: int, inputs: int = 3, hidden: int = 5) -> Plain:
    return random_network(
        [
            ("conv", nn.Conv1d(inputs, hidden, 3)),
            ("norm", nn.BatchNorm1d(hidden)),
            ("relu", nn.ReLU()),
            ("flat", nn.Flatten()),
            ("head", nn.Linear(hidden * 2, 3, bias=False)),
        ],
        seed,
    )


def _of_words(seed: int) -> Plain:
    return random_network(
        [("words", nn.Embedding(7, 4)), ("memory", nn.LSTM(4, 3)), ("norm", nn.LayerNorm(3))], seed
    )


def _nested(seed: int) -> Plain:
    block = nn.Sequential(OrderedDict(conv=nn.Conv1d(3, 4, 3), norm=nn.BatchNorm1d(4)))
    return random_network([("block", block), ("flat", nn.Flatten()), ("head", nn.Linear(8, 3))], seed)


def _sharing(seed: int) -> Plain:
    words = [("words", nn.Embedding(7, 4)), ("hidden", nn.Linear(4, 4)), ("norm", nn.BatchNorm1d(4))]
    network = random_network([*words, ("out", nn.Linear(4, 7))], seed)
    return {**network, "shared": {"out.weight": "words.weight"}}


def _shared(function: str) -> Callable[[Draw], Iterator[Case]]:
    def cases(draw: Draw) -> Iterator[Case]:
        shown = f"{function}(Embedding(7, 4), Linear(4, 4), BatchNorm1d(4), Linear(4, 7) with the embedding's weight)"
        yield Case({"model": _sharing(draw.seed)}, shown)

    return cases


def _frozen(seed: int, what: str) -> Plain:
    network = _mixed(seed)
    network["layers"][0]["frozen"] = [what]
    return network


def _networks(draw: Draw) -> Iterator[tuple[Plain, str]]:
    yield _small(), "a Linear with 2 weights and no bias"
    yield _small(bias=True), "a Linear with 2 weights and a bias"
    yield _mixed(draw.seed), "Conv1d(3, 5, 3), BatchNorm1d(5), ReLU, Flatten, Linear(10, 3, bias=False)"
    yield _of_words(draw.seed), "Embedding, LSTM, LayerNorm"
    yield _nested(draw.seed), "a block of Conv1d and BatchNorm1d, and a Linear"
    yield _net(linear(torch.ones(2, 3, dtype=torch.float64), name="fc")), "a Linear with 6 weights of float64"


def _counting(draw: Draw) -> Iterator[Case]:
    for network, shown in _networks(draw):
        yield Case({"model": network}, f"count_parameters({shown})")
    for what in ("weight", "bias"):
        shown = f"count_parameters(a network whose convolution's {what} is frozen)"
        yield Case({"model": _frozen(draw.seed, what)}, shown)


def _counted(case: Case, answer: Answer) -> str | None:
    right = CompressionMetrics.count_parameters(network_from(case.inputs["model"]))
    if answer["total"] != right.total:
        return f"the total is {answer['total']}, which is not the number of values that training may change"
    if answer["trainable"] != right.trainable:
        return f"{answer['trainable']} are called trainable; look at which of them have requires_grad"
    if answer["by_layer"] != dict(right.by_layer):
        return f"by_layer is {answer['by_layer']}, which is not what each layer itself holds"
    return None


def _counting_hidden(draw: Draw) -> Iterator[Case]:
    for salt in range(3):
        network = _mixed(draw.seed + salt, inputs=2 + salt, hidden=4 + 3 * salt)
        yield Case({"model": network}, "count_parameters(another network)")


def _no_network(function: str, **options: Plain) -> Any:
    def cases(draw: Draw) -> Iterator[Case]:
        yield Case({"model": "weights.pt", **options}, f"{function}('weights.pt')")
        empty = network_data(nn.Sequential(nn.ReLU()))
        yield Case({"model": empty, **options}, f"{function}(a network with nothing but a ReLU)")

    return cases


def _sizing(draw: Draw) -> Iterator[Case]:
    for network, shown in _networks(draw):
        yield Case({"model": network}, f"calculate_model_size({shown})")


def _packing(draw: Draw) -> Iterator[Case]:
    three = _net(linear(torch.tensor([[1.0, 2.0, 3.0]]), name="fc"))
    for bits in (8, 4, 3, 2):
        yield Case(
            {"model": three, "bits": bits}, f"calculate_model_size(a Linear with 3 weights, bits={bits})"
        )
    yield Case(
        {"model": _net(linear(torch.ones(2, 3, dtype=torch.float64), name="fc")), "bits": 3},
        "calculate_model_size(a Linear with 6 weights of float64, bits=3)",
    )
    for bits in (5, 4, 7):
        yield Case(
            {"model": _mixed(draw.seed), "bits": bits},
            f"calculate_model_size(Conv1d(3, 5, 3), BatchNorm1d(5), Linear(10, 3, bias=False), bits={bits})",
        )


def _packing_hidden(draw: Draw) -> Iterator[Case]:
    for bits in range(2, 9):
        network = _mixed(draw.seed + bits, inputs=1 + bits % 3, hidden=3 + bits)
        yield Case({"model": network, "bits": bits}, f"calculate_model_size(another network, bits={bits})")


def _sized(case: Case, answer: Answer) -> str | None:
    bits = case.inputs.get("bits")
    right = CompressionMetrics.calculate_model_size(network_from(case.inputs["model"]), bits=bits)
    for name in ("total_bytes", "parameter_bytes", "buffer_bytes", "by_dtype", "by_layer"):
        due = getattr(right, name)
        due = dict(due) if name.startswith("by_") else due
        got = (
            {k: v for k, v in answer[name].items() if v or k in due}
            if name.startswith("by_")
            else answer[name]
        )
        if got != due or (not isinstance(got, dict) and isinstance(got, float)):
            return f"{name} is {answer[name]}, which is not what is stored"
    return None


def _bad_bits(draw: Draw) -> Iterator[Case]:
    for bits in (1, 9, 0):
        yield Case({"model": _small(), "bits": bits}, f"calculate_model_size(a small network, bits={bits})")


def _bad_bits_told(case: Case, answer: Answer) -> str | None:
    return refuses(str(case.inputs["bits"]))(case, answer)


def _spreads(draw: Draw) -> Iterator[Case]:
    small = _net(linear(torch.tensor([[0.0, 2.0, -1.0, 0.5]]), torch.tensor([7.0]), name="fc"))
    yield Case(
        {"model": small, "near_zero": 0.5},
        "analyze_weight_distribution(Linear [[0, 2, -1, 0.5]] with the bias [7], near_zero=0.5)",
    )
    one = _net(linear(torch.tensor([[3.0]]), name="fc"))
    yield Case({"model": one}, "analyze_weight_distribution(a Linear with one weight)")
    same_value = _net(linear(torch.full((2, 2), 0.25), name="fc"))
    yield Case({"model": same_value}, "analyze_weight_distribution(a Linear whose weights are all 0.25)")
    yield Case(
        {"model": _mixed(draw.seed), "near_zero": 0.3},
        "analyze_weight_distribution(Conv1d(3, 5, 3), BatchNorm1d(5), Linear(10, 3, bias=False))",
    )
    yield Case(
        {"model": _of_words(draw.seed), "near_zero": 0.3},
        "analyze_weight_distribution(Embedding, LSTM, LayerNorm)",
    )
    yield Case(
        {"model": _nested(draw.seed)},
        "analyze_weight_distribution(a block of Conv1d and BatchNorm1d, and a Linear)",
    )
    own = {
        **_net(linear(torch.tensor([[1.0, 2.0]]), name="fc")),
        "own": {"table": torch.tensor([[5.0], [9.0]])},
    }
    yield Case(
        {"model": own}, "analyze_weight_distribution(a network with a table of its own and a layer 'fc')"
    )
    half = _net(linear(draw.normal(8, 8).to(torch.float16), name="fc"))
    yield Case({"model": half}, "analyze_weight_distribution(a Linear with 64 weights of float16)")


def _spreads_hidden(draw: Draw) -> Iterator[Case]:
    for salt in range(3):
        network = _mixed(draw.seed + salt, hidden=4 + salt)
        yield Case(
            {"model": network, "near_zero": 0.1 * salt}, "analyze_weight_distribution(another network)"
        )


def _spread(case: Case, answer: Answer) -> str | None:
    near_zero = case.inputs.get("near_zero", 1e-3)
    right = CompressionMetrics.analyze_weight_distribution(
        network_from(case.inputs["model"]), near_zero=near_zero
    )
    due = {**right.by_layer, "": right.whole}
    if set(answer) != set(due):
        return f"there are summaries of {sorted(answer)}; promised are the layers with weights, and all of them as ''"
    for layer, summary in due.items():
        for name in ("count", "mean", "std", "low", "high", "near_zero", "sparsity"):
            if not close(answer[layer][name], getattr(summary, name)):
                return f"{name} of {layer or 'all weights'} is {number(answer[layer][name])}, which is not so"
    return None


def _bad_weights(draw: Draw) -> Iterator[Case]:
    for value in (NAN, math.inf):
        broken = _net(linear(torch.tensor([[1.0, value]]), name="fc"))
        yield Case({"model": broken}, f"analyze_weight_distribution(Linear [[1, {value}]])")


def _bad_threshold(draw: Draw) -> Iterator[Case]:
    yield Case(
        {"model": _small(), "near_zero": -0.5}, "analyze_weight_distribution(a small network, near_zero=-0.5)"
    )


CHECKS = (
    Check("count_parameters", "counts what training may change, layer by layer", _counting, seen(_counted)),
    Check("count_parameters", "counts other networks as well", _counting_hidden, seen(_counted), hidden=True),
    Check("count_parameters", ONCE, _shared("count_parameters"), seen(_counted)),
    Check("count_parameters", "refuses what is no network", _no_network("count_parameters"), refuses()),
    Check("calculate_model_size", "adds up the bytes of parameters and buffers", _sizing, seen(_sized)),
    Check("calculate_model_size", "counts packed weights in whole bytes", _packing, seen(_sized)),
    Check(
        "calculate_model_size",
        "counts other packed networks as well",
        _packing_hidden,
        seen(_sized),
        hidden=True,
    ),
    Check("calculate_model_size", ONCE, _shared("calculate_model_size"), seen(_sized)),
    Check("calculate_model_size", "refuses bits outside 2..8", _bad_bits, _bad_bits_told),
    Check(
        "calculate_model_size", "refuses what is no network", _no_network("calculate_model_size"), refuses()
    ),
    Check(
        "analyze_weight_distribution",
        "describes the weights of each layer and of all",
        _spreads,
        seen(_spread),
    ),
    Check(
        "analyze_weight_distribution", "describes others as well", _spreads_hidden, seen(_spread), hidden=True
    ),
    Check("analyze_weight_distribution", ONCE, _shared("analyze_weight_distribution"), seen(_spread)),
    Check("analyze_weight_distribution", "refuses NaN and infinity", _bad_weights, refuses()),
    Check("analyze_weight_distribution", "refuses a threshold below 0", _bad_threshold, refuses("-0.5")),
    Check(
        "analyze_weight_distribution",
        "refuses what has no weights",
        _no_network("analyze_weight_distribution"),
        refuses(),
    ),
)
