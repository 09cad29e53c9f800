"""A receipt as a run on smartwatch recordings would leave it, with every odd case that a report must tell.

The numbers are made up, yet hold together: bytes follow from shapes and bits, histograms count the weights.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tinypress.files import sha256
from tinypress.receipt import (
    Artifact,
    Candidate,
    Drop,
    Finding,
    Histogram,
    Latency,
    Layer,
    Machine,
    Quality,
    Quantity,
    Ratio,
    Receipt,
    Tolerance,
    Validation,
)

SHAPES: dict[str, tuple[int, ...]] = {
    "features.0": (32, 6, 5),
    "features.3": (64, 32, 5),
    "features.6": (128, 64, 5),
    "hidden": (128, 512),
    "head": (7, 128),
}
HALF: dict[str, tuple[int, ...]] = {
    "features.0": (16, 6, 5),
    "features.3": (32, 16, 5),
    "features.6": (64, 32, 5),
    "hidden": (64, 256),
    "head": (7, 64),
}
QUARTER: dict[str, tuple[int, ...]] = {
    "features.0": (8, 6, 5),
    "features.3": (16, 8, 5),
    "features.6": (32, 16, 5),
    "hidden": (32, 128),
    "head": (7, 32),
}
ZEROS = Finding(
    code="TP101",
    severity="note",
    layer=None,
    text="80 % of the weights are zero, but ONNX stores every zero: the file is no smaller for them",
)
FLOAT_HEAD = Finding(
    code="TP104", severity="note", layer="head", text="stayed in float32: its 8-bit output differed too much"
)
NO_LATENCY = Finding(
    code="TP110",
    severity="warning",
    layer=None,
    text="latency was not measured: the archive is opened by PyTorch, whose threads could not be pinned here",
)
NO_MEMORY = Finding(
    code="TP111",
    severity="note",
    layer=None,
    text="peak memory was not measured: the process could not be traced",
)
RANDOM = Finding(
    code="TP120",
    severity="warning",
    layer="features.6",
    text="random scores did as well as magnitudes on validation: the choice of weights earned nothing here",
)


def _layer(name: str, shape: tuple[int, ...], bits: int, zeros: float, packed: bool, seed: int) -> Layer:
    rng = np.random.default_rng([seed, *name.encode()])
    weights = rng.normal(0, 0.8 / np.sqrt(np.prod(shape[1:])), shape).ravel()
    weights[np.argsort(np.abs(weights))[: int(zeros * weights.size)]] = 0.0
    if bits == 8:
        step = np.abs(weights).max() / 127
        weights = np.round(weights / step) * step
    edge = float(np.abs(weights).max())
    counts, _ = np.histogram(weights, bins=41, range=(-edge, edge))
    nonzero = int(np.count_nonzero(weights))
    stored = weights.size // 8 + nonzero * bits // 8 if packed else weights.size * bits // 8
    return Layer(
        name=name,
        kind="Conv1d" if len(shape) == 3 else "Linear",
        weight_shape=shape,
        parameters=weights.size + shape[0],
        nonzero_parameters=nonzero + shape[0],
        bits=bits,
        bytes=stored + 4 * shape[0],
        macs=weights.size * (25 if len(shape) == 3 else 1),
        histogram=Histogram(low=-edge, high=edge, counts=tuple(int(count) for count in counts)),
    )


def _candidate(
    name: str,
    drop: float,
    role: Literal["baseline", "candidate", "control"] = "candidate",
    *,
    about: str = "",
    recipe: tuple[dict[str, Any], ...] = (),
    shapes: dict[str, tuple[int, ...]] = SHAPES,
    bits: int = 32,
    zeros: float = 0.0,
    runtime: Literal["onnxruntime", "torch"] = "onnxruntime",
    time: float | None = 1.0,
    memory: bool = True,
    findings: tuple[Finding, ...] = (),
) -> Candidate:
    packed = runtime == "torch"
    layers = tuple(
        _layer(layer, shape, bits, 0.0 if layer == "head" else zeros, packed, seed=len(name))
        for layer, shape in shapes.items()
    )
    slug = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
    path = f"artifacts/{slug}.{'press' if packed else 'onnx'}"
    half = 0.55 + 0.12 * abs(drop)
    low, high = drop - half, drop + half
    verdict: Literal["within", "beyond", "cannot tell"] = "cannot tell"
    verdict = "within" if high <= 3 else "beyond" if low > 3 else verdict
    quality = 0.8834 - drop / 100
    return Candidate(
        name=name,
        role=role,
        about=about,
        recipe=recipe,
        artifact=Artifact(
            path=path,
            runtime=runtime,
            bytes=sum(layer.bytes for layer in layers) + 2911,
            sha256=sha256(name.encode()),
        ),
        parameters=sum(layer.parameters for layer in layers),
        nonzero_parameters=sum(layer.nonzero_parameters for layer in layers),
        macs=sum(layer.macs or 0 for layer in layers),
        latency_ms=None
        if time is None
        else Latency(
            median=0.2131 * time,
            low=0.2093 * time,
            high=0.2204 * time,
            batch=1,
            threads=1,
            ratio_to_baseline=Ratio(value=time, low=0.97 * time, high=1.04 * time),
        ),
        peak_memory_bytes=Quantity(value=1_318_912 * (time or 1), method="malloc peak of one run")
        if memory
        else None,
        energy_mj=Quantity(
            value=0.0124 * (time or 1.7), method="estimate: operations and bytes moved times energy"
        ),
        validation=Validation(value=quality + 0.0112, samples=1402, groups=50),
        quality=Quality(
            value=quality,
            low=quality - 0.017,
            high=quality + 0.016,
            samples=1917,
            groups=70,
            evaluated_in=runtime,
        ),
        drop=None
        if role == "baseline"
        else Drop(
            value=drop,
            low=low,
            high=high,
            unit="points",
            method="paired bootstrap over groups",
            verdict=verdict,
            mcnemar_p=0.0413 if name == "int8" else None,
            samples_needed=5230 if verdict == "cannot tell" else None,
        ),
        seconds=3.1 + 4 * abs(drop),
        layers=layers,
        findings=findings,
    )


PRUNE: dict[str, Any] = {"technique": "magnitude", "sparsity": 0.8, "scope": "global"}
RECOVER: dict[str, Any] = {"technique": "recover", "epochs": 10}
INT8: dict[str, Any] = {"technique": "quantize", "bits": 8, "per_channel": True, "calibration_samples": 256}
SHRINK: dict[str, Any] = {
    "technique": "shrink",
    "ratio": 0.5,
    "importance": "l2",
    "layers": ["features.0", "hidden"],
}
DISTILL: dict[str, Any] = {"technique": "distill", "temperature": 4.0, "alpha": 0.7, "epochs": None}


def sample_candidates() -> tuple[Candidate, ...]:
    """Baseline, techniques alone and together, and the controls."""
    return (
        _candidate("baseline", 0.0, "baseline", about="The trained network as it came, in float32."),
        _candidate("prune", 0.2, recipe=(PRUNE, RECOVER), zeros=0.8, time=1.01, findings=(ZEROS,)),
        _candidate(
            "prune (archive)", 0.2, recipe=(PRUNE, RECOVER), zeros=0.8, runtime="torch", time=None, memory=False,
            findings=(NO_LATENCY, NO_MEMORY),
        ),
        _candidate(
            "int8", 0.1, about="Every layer to 8 bits.", recipe=(INT8,), bits=8, time=0.52, findings=(FLOAT_HEAD,)
        ),
        _candidate("distill", 1.2, recipe=(DISTILL,), shapes=QUARTER, time=0.31),
        _candidate("shrink", 0.6, recipe=(SHRINK, RECOVER), shapes=HALF, time=0.47),
        _candidate("shrink+int8", 0.9, recipe=(SHRINK, RECOVER, INT8), shapes=HALF, bits=8, time=0.29),
        _candidate(
            "prune+int8", 0.4, recipe=(PRUNE, RECOVER, INT8), zeros=0.8, bits=8, time=0.53, findings=(ZEROS, FLOAT_HEAD)
        ),
        _candidate(
            "prune+int8 (archive)", 0.4, recipe=(PRUNE, RECOVER, INT8), zeros=0.8, bits=8, runtime="torch", time=2.1,
            memory=False, findings=(NO_MEMORY,),
        ),
        _candidate(
            "shrink+distill+int8", 2.6, about="Half the width, taught by the full network, then 8 bits.",
            recipe=(SHRINK, DISTILL, INT8), shapes=QUARTER, bits=8, time=0.21, findings=(FLOAT_HEAD,),
        ),
        _candidate(
            "control: random scores", 5.8, "control", recipe=({**PRUNE, "score": "random"}, RECOVER), zeros=0.8,
            time=1.0, findings=(ZEROS, RANDOM),
        ),
        _candidate("control: same extra training", -0.3, "control", recipe=(RECOVER,), time=1.0),
        _candidate("control: smaller dense from scratch", 1.7, "control", shapes=QUARTER, time=0.3),
        _candidate("control: student alone", 4.9, "control", shapes=QUARTER, time=0.32),
    )  # fmt: skip


def sample_receipt() -> Receipt:
    """Fourteen artifacts, each verdict, two numbers not measured."""
    return Receipt(
        tinypress="0.1.0",
        task="watch",
        about="Which of seven shoulder exercises a wrist makes, from two seconds of six-axis recordings.",
        metric="accuracy",
        higher_is_better=True,
        machine=Machine(
            cpu="Example CPU 3000 at 2.5 GHz",
            isa=("avx2", "avx512_vnni"),
            threads=2,
            runtimes={"onnxruntime": "1.24.1", "torch": "2.13.0"},
        ),
        seed=0,
        tolerance=Tolerance(value=3.0, unit="points"),
        candidates=sample_candidates(),
        pareto=("int8", "shrink+int8", "prune+int8 (archive)", "shrink+distill+int8"),
        chosen="shrink+distill+int8",
        findings=(
            Finding(
                code="TP201",
                severity="note",
                layer=None,
                text="the test recordings come from 4 subjects: intervals do not speak for other people",
            ),
        ),
    ).sealed()
