"""int8 beside float in ONNX Runtime, batch 1 and 32, on CNNs of more than 50 million multiply-accumulates a sample.

Where the processor has 8-bit dot products (VNNI) the bar is 2x. Where it has none the figures say what is left, and
which of the two files ``press`` would be right to choose by time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from rich.table import Table
from torch import Tensor, nn

from bench.peer import macs
from bench.speedup import written
from bench.structured import Logits
from tinypress.measure.latency import interleave
from tinypress.measure.machine import machine
from tinypress.quantize import quantize_model
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import to_onnx
from tinypress.ship.signs import DOT_PRODUCTS
from tinypress.task import Split
from tinypress.tasks import crepe, efficientnet

BATCHES = (1, 32)
BAR = 2.0


def networks() -> dict[str, Callable[[], tuple[nn.Module, Tensor]]]:
    """Networks by name, each with 32 samples."""
    return {
        "efficientnet-lite0": lambda: (efficientnet.network(), _images()),
        "resnet-50": lambda: (
            Logits(
                transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))
            ).eval(),
            _images(),
        ),
        "crepe-full": lambda: (crepe.network("full"), crepe.sounds("test", crepe.SNR_DB, 16).inputs[0][:32]),
    }


def _images() -> Tensor:
    return torch.randn(max(BATCHES), 3, 224, 224, generator=torch.Generator().manual_seed(0))


def measure(seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """For each network and batch: milliseconds of both files in turn, and how many times faster int8 is."""
    found: dict[str, Any] = {"isa": list(machine(1).isa), "networks": {}}
    for name, make in networks().items():
        if only and name not in only:
            continue
        model, samples = make()
        example = (samples[:2],)
        made = quantize_model(model, Split((samples,), torch.zeros(len(samples))), example)
        float_file = open_onnx(written(model, samples[:2]), threads=1)
        int8_file = open_onnx(to_onnx(made, example).SerializeToString(), threads=1)
        rows = {}
        for batch in BATCHES:
            given = [samples[:batch].numpy()]
            latency = interleave(
                partial(float_file.run, given),
                partial(int8_file.run, given),
                batch=batch,
                threads=1,
                seconds=seconds,
                rounds=7,
            )
            ratio = latency.ratio_to_baseline
            rows[str(batch)] = {
                "int8_ms": latency.median,
                "float_ms": latency.median / ratio.value,
                "times_faster": {"ratio": 1 / ratio.value, "low": 1 / ratio.high, "high": 1 / ratio.low},
                "faster_file": "int8" if ratio.high < 1 else "float" if ratio.low > 1 else "cannot tell",
            }
        found["networks"][name] = {"macs": macs(model, example), "batches": rows}
    return found


def table(row: dict[str, Any]) -> Table:
    """A line each network and batch."""
    fast = sorted(set(row["isa"]) & set(DOT_PRODUCTS))
    made = Table("network", "MACs", "batch", "float ms", "int8 ms", "int8 is faster", "the faster file")
    having = ", ".join(fast) or "no 8-bit dot products"
    made.title = f"ONNX Runtime, one thread, with {having} (bar with them: {BAR:g}x)"
    for name, found in row["networks"].items():
        for batch, each in found["batches"].items():
            ratio = each["times_faster"]
            made.add_row(
                name,
                f"{found['macs'] / 1e6:.0f} M",
                batch,
                f"{each['float_ms']:.1f}",
                f"{each['int8_ms']:.1f}",
                f"{ratio['ratio']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})",
                each["faster_file"],
            )
    return made
