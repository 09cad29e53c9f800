"""Milliseconds of a network in ONNX Runtime, always beside those of the network that it was made from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.arguments import is_whole
from tinypress.errors import InputError
from tinypress.float_onnx import to_float_onnx
from tinypress.graph import check_example
from tinypress.measure.latency import alone, interleave
from tinypress.receipt import Latency
from tinypress.runtimes.onnx import OnnxRunner, open_onnx

Example = tuple[NDArray[np.generic], ...]


def onnx_latency(
    model: nn.Module, example_inputs: tuple[Tensor, ...], *, threads: int = 1
) -> Callable[[nn.Module], float]:
    """How to measure the milliseconds of one sample in ONNX Runtime, for ``Budget(latency_ms=..., measure=...)``.

    Each network is timed in turn with ``model``, and the ratio that comes out is taken of the milliseconds that
    ``model`` had at the beginning: a machine that becomes slower meanwhile does not make a network slower.

    Args:
        example_inputs: one tensor [B, ...] per argument of ``forward``; the first sample is what is timed.

    Raises:
        ModelError: the network cannot be exported.
    """
    call = f"onnx_latency({type(model).__name__}, threads={threads!r})"
    if not is_whole(threads) or threads < 1:
        raise InputError(call, f"threads is {threads!r}", "Give a whole number from 1")
    if not isinstance(model, nn.Module):
        raise InputError(call, f"model is a {type(model).__name__}", "Give a torch.nn.Module")
    check_example(call, model, example_inputs)
    stock, example = open_network(model, example_inputs, threads)
    begun = alone(lambda: stock.run(example), batch=1, threads=threads).median

    def measure(network: nn.Module) -> float:
        runner, _ = open_network(network, example_inputs, threads)
        return begun * beside(stock, runner, example, threads).ratio_to_baseline.value

    return measure


def beside(whole: OnnxRunner, cut: OnnxRunner, example: Example, threads: int) -> Latency:
    """Milliseconds of ``cut`` on one sample, in turn with ``whole``."""
    return interleave(lambda: whole.run(example), lambda: cut.run(example), batch=1, threads=threads)


def open_network(
    model: nn.Module, example_inputs: tuple[Tensor, ...], threads: int
) -> tuple[OnnxRunner, Example]:
    """The network in ONNX Runtime, and the first sample of the example.

    Raises:
        ModelError: it cannot be exported.
    """
    data = to_float_onnx(model, example_inputs).SerializeToString()
    return open_onnx(data, threads), tuple(x[:1].detach().numpy() for x in example_inputs)
