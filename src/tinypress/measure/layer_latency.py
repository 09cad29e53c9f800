"""Times each layer of a network in ONNX Runtime at several widths: the latency table of one machine.

Each layer is written as an ONNX graph of its own, so that hundreds of widths are timed without exporting a network.
All widths of a layer take turns (``latency.in_turn``), so that a burst of another program slows them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import helper
from torch import Tensor, nn

from tinypress.arguments import is_number, is_whole
from tinypress.errors import InputError
from tinypress.measure.latency import ROUNDS, in_turn
from tinypress.measure.latency_table import LatencyTable, LayerTimes, Multiple, Timing
from tinypress.measure.layer_onnx import Spec, graph_bytes, layer_onnx, layer_specs
from tinypress.measure.machine import machine
from tinypress.measure.multiples import liked_multiple
from tinypress.measure.network_latency import open_network
from tinypress.receipt import Latency
from tinypress.runtimes.onnx import open_onnx

Watch = Callable[[str, int, int], None]
"""Told what is being timed, how many steps are done, and of how many."""

SHARES = (0.25, 0.5, 0.75, 1.0)
_WINDOW = 32  # consecutive widths that are timed to see what the kernel likes


@dataclass(frozen=True)
class _Pace:
    threads: int
    seconds: float
    rounds: int


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def measure_layers(
    name: str,
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    threads: int = 1,
    shares: Sequence[float] = SHARES,
    seconds: float = 0.3,
    rounds: int = ROUNDS,
    watch: Watch = _silent,
) -> LatencyTable:
    """Time the linear layers and convolutions of ``model`` in ONNX Runtime, one sample at a time.

    Args:
        name: what the table is called after, such as the task.
        model: the network; only read.
        example_inputs: one tensor [B, ...] per argument of ``forward``; its first sample is used.
        threads: of the runtime.
        shares: of the widths that a layer has, each for inputs and outputs.
        seconds: how long the widths of one layer take turns.
        rounds: how often each is timed at least; up to three times that where the timings vary much.
        watch: told after each layer.

    Raises:
        InputError: a share outside 0..1, without 1 itself, or no positive time.
        ModelError: the network does not run or cannot be exported, or has no such layer.
    """
    call = f"measure_layers({name!r}, threads={threads!r}, shares={shares!r})"
    if not isinstance(name, str) or len(name) > 1000:
        raise InputError(call, "the name is no text of at most 1000 letters", "Give the name of the task")
    if not isinstance(model, nn.Module):
        raise InputError(call, f"model is a {type(model).__name__}", "Give a torch.nn.Module")
    for what, number, least in (("threads", threads, 1), ("rounds", rounds, 6)):
        if not is_whole(number) or number < least:
            raise InputError(call, f"{what} is {number!r}", f"Give a whole number from {least}")
    if not isinstance(shares, Sequence) or not all(map(is_number, shares)):
        raise InputError(call, "the shares are no list of numbers", "Give (0.25, 0.5, 0.75, 1.0)")
    if any(not 0 < share <= 1 for share in shares) or 1.0 not in shares:
        raise InputError(
            call, "the shares are not all in 0..1 with 1 among them", "Give (0.25, 0.5, 0.75, 1.0)"
        )
    specs = layer_specs(call, model, example_inputs)
    kinds: dict[str, Spec] = {}
    for spec in specs.values():
        if spec.groups == 1:
            known = kinds.setdefault(spec.kind, spec)
            kinds[spec.kind] = max(known, spec, key=lambda each: each.inputs * each.outputs * each.values)
    unique = list(dict.fromkeys(specs.values()))
    total = 1 + len(unique) + 2 * len(kinds)
    watch("timing the whole network", 0, total)
    pace = _Pace(threads, seconds, rounds)
    call_ms, whole_ms = _whole(model, example_inputs, pace)
    rows = []
    for done, spec in enumerate(unique, start=1):
        paths = tuple(path for path, own in specs.items() if own == spec)
        watch(f"timing {paths[0]}", done, total)
        rows.append(_timed_layer(paths, spec, shares, pace))
    multiples = []
    for done, (kind, spec) in enumerate(kinds.items()):
        for place, side in enumerate(("inputs", "outputs")):
            watch(f"timing {side} of {kind}", 1 + len(unique) + 2 * done + place, total)
            path = next(path for path, own in specs.items() if own == spec)
            multiples.append(_multiple(path, spec, side, pace))
    watch("timed", total, total)
    return LatencyTable(
        task=name,
        batch=1,
        machine=machine(threads),
        call_ms=call_ms,
        whole_ms=whole_ms,
        layers=tuple(rows),
        multiples=tuple(multiples),
    )


def _opened(spec: Spec, inputs: int, outputs: int, threads: int) -> Callable[[], object]:
    data, shape = layer_onnx(spec, inputs, outputs)
    runner = open_onnx(data, threads)
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return lambda: runner.run((x,))


def _pairs(spec: Spec, shares: Sequence[float]) -> list[tuple[int, int]]:
    """The widths that the layer has first, then the others; those of a grouped convolution go together."""
    if spec.groups > 1:
        one, other = spec.inputs // spec.groups, spec.outputs // spec.groups
        counts = {max(round(share * spec.groups), 1) for share in shares}
        pairs = {(count * one, count * other) for count in counts}
    else:
        some = {max(round(share * spec.inputs), 1) for share in shares}
        others = {max(round(share * spec.outputs), 1) for share in shares}
        pairs = {(inputs, outputs) for inputs in some for outputs in others}
    return [(spec.inputs, spec.outputs), *sorted(pairs - {(spec.inputs, spec.outputs)})]


def _timing(pair: tuple[int, int], found: Latency) -> Timing:
    return Timing(
        inputs=pair[0], outputs=pair[1], median_ms=found.median, low_ms=found.low, high_ms=found.high
    )


def _width(found: Sequence[Latency]) -> float:
    """Mean width of the intervals, relative to the medians."""
    return sum((each.high - each.low) / each.median for each in found) / len(found)


def _timings(
    spec: Spec, pairs: Sequence[tuple[int, int]], pace: _Pace, tries_at_most: int
) -> tuple[Timing, ...]:
    calls = [_opened(spec, *pair, pace.threads) for pair in pairs]
    tries: list[list[Latency]] = []
    for _ in range(tries_at_most):
        tries.append(in_turn(calls, batch=1, threads=pace.threads, seconds=pace.seconds, rounds=pace.rounds))
        if _width(tries[-1]) < 0.15:
            break
    # as in a receipt: another program's burst shows as wide intervals, and which try is kept depends on those alone
    found = min(tries, key=_width)
    return tuple(sorted(map(_timing, pairs, found), key=lambda each: (each.inputs, each.outputs)))


def _timed_layer(paths: tuple[str, ...], spec: Spec, shares: Sequence[float], pace: _Pace) -> LayerTimes:
    return LayerTimes(
        layers=paths,
        kind=spec.kind,
        inputs=spec.inputs,
        outputs=spec.outputs,
        values=max(spec.values, 1),
        calls=spec.calls,
        timings=_timings(spec, _pairs(spec, shares), pace, 3),
    )


def _multiple(path: str, spec: Spec, side: str, pace: _Pace) -> Multiple:
    """Time consecutive widths of one side up to the layer's own, or to twice the window where it is narrower."""
    own = spec.inputs if side == "inputs" else spec.outputs
    top = max(-(-own // _WINDOW) * _WINDOW, 2 * _WINDOW)
    widths = range(top - _WINDOW, top + 1)
    pairs = [(width, spec.outputs) if side == "inputs" else (spec.inputs, width) for width in widths]
    timings = _timings(spec, pairs, pace, 1)
    # the low ends, because what disturbs a timing only ever adds to it
    times = {(each.inputs if side == "inputs" else each.outputs): each.low_ms for each in timings}
    multiple, loss = liked_multiple(times)
    return Multiple(layer=path, kind=spec.kind, side=side, multiple=multiple, loss=loss, timings=timings)  # type: ignore[arg-type]


def _whole(model: nn.Module, example_inputs: tuple[Tensor, ...], pace: _Pace) -> tuple[float, float]:
    """Milliseconds of a call that does nothing, and of the whole network."""
    nothing = open_onnx(graph_bytes(helper.make_node("Identity", ["x"], ["y"]), (1, 1), ()), pace.threads)
    one = np.zeros((1, 1), np.float32)
    runner, example = open_network(model, example_inputs, pace.threads)
    found = in_turn(
        [lambda: nothing.run((one,)), lambda: runner.run(example)],
        batch=1,
        threads=pace.threads,
        seconds=pace.seconds,
        rounds=pace.rounds,
    )
    return found[0].median, found[1].median
