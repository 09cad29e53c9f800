"""Half the multiply-accumulates of a pretrained network: how much faster it is in ONNX Runtime, and where time goes.

Each network is cut to half its MACs by the Taylor importance (``prune_structured(budget=Budget(macs=0.5))``), with
widths left as they come and with widths that 8 and 16 divide. Original and result are written as ONNX and timed in
turn, one thread, one sample; those with widths of 8 are judged on the test split as they are, untrained. The profile
of each file says in which kind of layer, and in which of the runtime's two layouts, its time goes: ONNX Runtime keeps
channels in blocks as wide as the processor's vectors, and a layer whose width they do not divide falls back to plain
convolution.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bench.peer import macs
from tinypress.float_onnx import to_float_onnx
from tinypress.measure.latency import interleave
from tinypress.measure.quality import evaluate, resolve_metric
from tinypress.measure.verdict import paired_drop
from tinypress.runtimes.onnx import OnnxRunner, open_onnx
from tinypress.shrink import Budget, prune_structured
from tinypress.task import Split, Task
from tinypress.tasks import crepe, efficientnet

SHARE = 0.5
MULTIPLES = (1, 8, 16)
JUDGED = 8
BARS = {"crepe-full": 1.6, "efficientnet-lite0": 1.4}
_PROFILED_RUNS = 10
_BATCHES = 4  # that the importance is measured on

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Subject:
    """A network with its data, and what its units' importance is measured on."""

    task: Task
    losses: Sequence[Loss]


def subjects() -> dict[str, Callable[[], Subject]]:
    """The networks by name."""
    return {"crepe-full": _crepe, "efficientnet-lite0": _efficientnet}


def measure(seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """For each network: its time and profile, and those of each result with the ratio to it."""
    return {name: _measured(make(), seconds) for name, make in subjects().items() if not only or name in only}


def losses_on(split: Split, loss: Callable[[Tensor, Tensor], Tensor], batch: int) -> list[Loss]:
    """The loss of a network on each of the first batches of ``split``."""

    def on(part: Split) -> Loss:
        return lambda model: loss(model(*part.inputs), part.targets)

    return [on(split.take(slice(n * batch, (n + 1) * batch))) for n in range(_BATCHES)]


def _crepe() -> Subject:
    task = crepe.load("full", crepe.NOISY_SNR_DB)
    assert task.train is not None
    return Subject(task, losses_on(task.train, crepe.pitch_loss, 32))


def _efficientnet() -> Subject:
    task = efficientnet.load()
    assert task.train is not None
    losses = losses_on(task.train.take(slice(0, None, 2)), functional.cross_entropy, 12)
    return Subject(task, losses)


def _measured(subject: Subject, seconds: float) -> dict[str, Any]:
    model, example = subject.task.model, subject.task.example_inputs[0]
    sample = example[:1].numpy()
    baseline = written(model, example)
    original = open_onnx(baseline, threads=1)
    results: dict[str, Any] = {
        "macs": macs(model, (example,)),
        "profile_ms": profile(baseline, sample),
        "cut": {},
    }
    for multiple in MULTIPLES:
        made = prune_structured(
            model, (example,), budget=Budget(macs=SHARE), importance="taylor", losses=subject.losses, multiple=multiple
        ).model  # fmt: skip
        data = written(made, example)
        cut = open_onnx(data, threads=1)
        latency = interleave(
            lambda: original.run([sample]),
            lambda cut=cut: cut.run([sample]),  # type: ignore[misc]
            batch=1,
            threads=1,
            seconds=seconds,
        )
        ratio = latency.ratio_to_baseline
        results["cut"][multiple] = {
            "macs": macs(made, (example,)),
            "widths": [layer.weight.shape[0] for layer in made.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d)],
            "median_ms": latency.median,
            "low_ms": latency.low,
            "high_ms": latency.high,
            "times_faster": {"ratio": 1 / ratio.value, "low": 1 / ratio.high, "high": 1 / ratio.low},
            "profile_ms": profile(data, sample),
        }  # fmt: skip
        if multiple == JUDGED:
            results["quality"] = _judged(subject.task, original, cut)
    return results


def _judged(task: Task, original: OnnxRunner, cut: OnnxRunner) -> dict[str, Any]:
    """The metric of both files on the test split, and the drop with its interval."""
    metric = resolve_metric(task.metric, task.higher_is_better)
    was, now = (evaluate(runner, task.test, metric, batch_size=16) for runner in (original, cut))
    drop = paired_drop(
        was.outputs, now.outputs, task.test.targets, task.test.groups, metric, task.tolerance, 0
    )
    return {"metric": metric.name, "original": was.value, "cut": now.value, "drop": drop.model_dump()}


def written(model: nn.Module, example: Tensor) -> bytes:
    """The network as the bytes of an ONNX file."""
    return to_float_onnx(model, (example,)).SerializeToString(deterministic=True)


def profile(data: bytes, sample: NDArray[np.generic]) -> dict[str, float]:
    """Median milliseconds of a run by kind of layer and layout, from the runtime's own profile, slowest first.

    The first two runs, which touch fresh memory, do not count.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for _ in range(_PROFILED_RUNS + 2):
            session.run(None, {name: sample})
        events = json.loads(Path(session.end_profiling()).read_text())
    # the median of each node: a run in which another program had the core must not stand for the layer
    times: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"]].append(event["dur"] / 1000)
            kinds[event["name"]] = _kind(event)
    total: dict[str, float] = defaultdict(float)
    for node, values in times.items():
        total[kinds[node]] += statistics.median(values[2:])
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _kind(event: dict[str, Any]) -> str:
    """What a node of the profile is, such as "depthwise convolution, blocked"."""
    operation: str = event["args"]["op_name"]
    if operation not in ("Conv", "FusedConv"):
        return operation
    shapes = [next(iter(entry.values())) for entry in event["args"]["input_type_shape"]]
    inputs, weight = shapes[0], shapes[1]
    wide = "pointwise " if set(weight[2:]) == {1} else ""
    if weight[1] == 1 and inputs[1] > 1:
        wide = "depthwise "
    layout = "blocked" if "nchwc" in event["name"] else "plain"
    return f"{wide}convolution, {layout}"
