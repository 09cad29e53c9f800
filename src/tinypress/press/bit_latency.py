"""What each layer takes at each number of bits, in ONNX Runtime: the operators that ship its weights, timed alone.

Integers of 4 bits and fewer are multiplied as they are packed, which can be faster than floats; others are unpacked to
floats first, which never is. So a budget of time and one of bytes ask for different bits, and only a measurement tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Compressed, QuantPlan
from tinypress.measure.latency import in_turn
from tinypress.measure.layer_onnx import Spec, layer_onnx, layer_specs
from tinypress.quantize import LayerBits, dequantize_layer_weights
from tinypress.quantize.affine import Scheme
from tinypress.quantize.layer import quantize_weight
from tinypress.quantize.rows import Grid
from tinypress.quantize.sensitivity import FLOAT
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import low_bits
from tinypress.train.progress import Progress, silent


def measure_bit_latencies(
    measured: Sequence[LayerBits],
    model: nn.Module | Compressed,
    example_inputs: tuple[Tensor, ...],
    *,
    scheme: Scheme = "symmetric",
    group_size: int | None = None,
    threads: int = 1,
    seconds: float = 0.2,
    progress: Progress = silent,
) -> tuple[LayerBits, ...]:
    """``measured`` with the milliseconds of each layer at each number of bits, for one sample.

    All options of a layer take turns. What is no Linear or convolution, such as a table of rows that are looked up,
    counts as taking no time.

    Args:
        measured: from ``measure_sensitivity`` of the same network, with the same ``scheme`` and ``group_size``.
        threads: of the runtime.
        seconds: how long the options of one layer take turns.

    Raises:
        InputError: a layer that was measured is none of the network's.
        ModelError: the network does not run on the example, or no layer can be timed.
    """
    network = model.model if isinstance(model, Compressed) else model
    call = f"measure_bit_latencies({len(measured)} measurements, {type(network).__name__})"
    known = {name for name, _ in network.named_modules(remove_duplicate=False)}
    strange = sorted({each.layer for each in measured} - known)
    if strange:
        raise InputError(call, f"{strange[0]!r} is no layer of the network", "Measure its own sensitivities")
    specs = layer_specs(call, network, tuple(x[:1] for x in example_inputs))
    by_layer: dict[str, list[LayerBits]] = {}
    for each in measured:
        by_layer.setdefault(each.layer, []).append(each)
    seen: dict[tuple[Spec, tuple[int, ...]], list[float]] = {}
    found: list[LayerBits] = []
    for done, (name, options) in enumerate(by_layer.items()):
        progress("timing layers at each number of bits", done, len(by_layer))
        spec, bits = specs.get(name), tuple(each.bits for each in options)
        if spec is None:
            found += [replace(each, latency_ms=0.0) for each in options]
            continue
        if (spec, bits) not in seen:  # layers of one shape are timed once
            calls = [_opened(call, spec, each, scheme, group_size, threads) for each in bits]
            seen[spec, bits] = [x.median for x in in_turn(calls, batch=1, threads=threads, seconds=seconds)]
        times = seen[spec, bits]
        found += [
            replace(each, latency_ms=time * spec.calls) for each, time in zip(options, times, strict=True)
        ]
    progress("timing layers at each number of bits", len(by_layer), len(by_layer))
    return tuple(found)


def _opened(
    call: str, spec: Spec, bits: int, scheme: Scheme, group_size: int | None, threads: int
) -> Callable[[], object]:
    data, shape = layer_onnx(spec, spec.inputs, spec.outputs)
    proto = onnx.load_model_from_string(data)
    if bits != FLOAT:
        (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "w")
        real = torch.from_numpy(numpy_helper.to_array(weight).copy())
        rows = real if spec.kernel else real.T.contiguous()
        packed = quantize_weight(call, rows, 0, Grid(bits, scheme, group_size))
        rounded = dequantize_layer_weights(packed).numpy()
        weight.CopyFrom(
            numpy_helper.from_array(np.ascontiguousarray(rounded if spec.kernel else rounded.T), "w")
        )
        proto.opset_import[0].version = low_bits.OPSET
        proto = low_bits.with_low_bits(call, proto, QuantPlan({"w": packed}))
    runner = open_onnx(proto.SerializeToString(), threads)
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return lambda: runner.run((x,))
