"""int8 beside float in ONNX Runtime, batch 1 and 32, on CNNs of more than 50 million multiply-accumulates a sample.

Where the processor has 8-bit dot products (VNNI) the bar is 2x. Where it has none the figures say what is left, and
which of the two files ``press`` would be right to choose by time. ONNX Runtime's own ``quantize_static`` writes a third
file of the same float one, which takes turns with them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.table import Table
from torch import Tensor, nn

from bench.int8_peers import by_onnxruntime, feeds_of
from bench.peer import macs
from bench.speedup import written
from bench.structured import Logits
from tinypress.measure.latency import in_turn
from tinypress.measure.machine import machine
from tinypress.quantize import quantize_model
from tinypress.runtimes.onnx import OnnxRunner, open_onnx
from tinypress.ship import to_onnx
from tinypress.ship.signs import DOT_PRODUCTS
from tinypress.task import Split
from tinypress.tasks import crepe, efficientnet

BATCHES = (1, 32)
BAR = 2.0
PEER = "ONNX Runtime's quantize_static"
SAMPLES = 4  # that the peer is calibrated on: its time to run does not depend on them


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
        "mobilenet-v2": lambda: (
            Logits(
                transformers.MobileNetV2ForImageClassification(
                    transformers.MobileNetV2Config(num_labels=1000)
                )
            ).eval(),
            _images(),
        ),
        "crepe-full": lambda: (crepe.network("full"), crepe.sounds("test", crepe.SNR_DB, 16).inputs[0][:32]),
    }


def _images() -> Tensor:
    return torch.randn(max(BATCHES), 3, 224, 224, generator=torch.Generator().manual_seed(0))


def measure(seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """For each network and batch: milliseconds of the files in turn, and how many times faster than float each is."""
    found: dict[str, Any] = {"isa": list(machine(1).isa), "networks": {}}
    for name, make in networks().items():
        if only and name not in only:
            continue
        model, samples = make()
        files = _files(model, samples)
        rows = {}
        for batch in BATCHES:
            given = [samples[:batch].numpy()]
            calls = [partial(file.run, given) for file in files.values()]
            of_float, *others = in_turn(calls, batch=batch, threads=1, seconds=seconds, rounds=15)
            rows[str(batch)] = {
                "float_ms": of_float.median,
                **{
                    key: {
                        "ms": latency.median,
                        "times_faster": {
                            "ratio": 1 / latency.ratio_to_baseline.value,
                            "low": 1 / latency.ratio_to_baseline.high,
                            "high": 1 / latency.ratio_to_baseline.low,
                        },
                    }
                    for key, latency in zip(list(files)[1:], others, strict=True)
                },
            }
        found["networks"][name] = {"macs": macs(model, (samples[:2],)), "batches": rows}
    return found


def _files(model: nn.Module, samples: Tensor) -> dict[str, OnnxRunner]:
    """The float file, ours and the peer's, open."""
    example = (samples[:2],)
    made = quantize_model(model, Split((samples,), torch.zeros(len(samples))), example)
    as_float = written(model, samples[:2])
    files = {
        "float": open_onnx(as_float, threads=1),
        "ours": open_onnx(to_onnx(made, example).SerializeToString(), threads=1),
    }
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(as_float)
        by_onnxruntime(source, target, feeds_of(files["float"].input_names, (samples[:SAMPLES],)))
        files["peer"] = open_onnx(target, threads=1)
    return files


def table(row: dict[str, Any]) -> Table:
    """A line each network and batch."""
    made = Table(
        "network", "MACs", "batch", "float ms", "int8 ms", "int8 is faster", "the peer's", "faster file"
    )
    made.title = f"ONNX Runtime, one thread, with {_dot_products(row)} (bar with them: {BAR:g}x)"
    for line in _lines(row):
        made.add_row(*line)
    return made


def page(row: dict[str, Any], machine: Mapping[str, Any]) -> str:
    """The page of the docs: the same as a Markdown table."""
    lines = [
        "# int8 beside float, in time",
        "",
        f"Written by `python -m bench --only int8-speed` on {machine['cpu'] or 'this processor'} with "
        f"{_dot_products(row)}: one thread of ONNX Runtime, the float file, ours and that of {PEER} in turn, medians "
        "of rounds and their 95 % intervals. Weights of ResNet-50 and MobileNetV2 are random, which time does not "
        "depend on.",
        "",
        "| network | MACs | batch | float, ms | int8, ms | int8 is faster | the peer's int8 | the faster file |",
        "|---|---|---|---|---|---|---|---|",
        *("| " + " | ".join(line) + " |" for line in _lines(row)),
    ]
    return "\n".join(lines) + "\n"


def _dot_products(row: dict[str, Any]) -> str:
    return ", ".join(sorted(set(row["isa"]) & set(DOT_PRODUCTS))) or "no 8-bit dot products"


def _lines(row: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{found['macs'] / 1e6:.0f} M",
            batch,
            f"{each['float_ms']:.1f}",
            f"{each['ours']['ms']:.1f}",
            _times(each["ours"]["times_faster"]),
            _times(each["peer"]["times_faster"]),
            _faster(each["ours"]["times_faster"]),
        )
        for name, found in row["networks"].items()
        for batch, each in found["batches"].items()
    ]


def _times(ratio: Mapping[str, float]) -> str:
    return f"{ratio['ratio']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _faster(ratio: Mapping[str, float]) -> str:
    return "int8" if ratio["low"] > 1 else "float" if ratio["high"] < 1 else "cannot tell"
