"""The step ``quantize``: by tables of bits, or by bits that are chosen under a budget."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tinypress.errors import InputError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.bit_latency import measure_bit_latencies
from tinypress.press.step import Quantize
from tinypress.quantize import (
    Reconstruction,
    choose_bits,
    measure_sensitivity,
    quantize_model,
    quantize_weights,
)
from tinypress.task import Split


def quantized(step: Quantize, before: Compressed, bench: Bench) -> Compressed:
    """The network after the step."""
    task = bench.task
    train = task.train if step.calibrate_on == "train" else None
    samples = train if train is not None else task.validation
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(bench.seed))
    calibration = samples.take(order[: step.calibration_samples])
    if step.weights_only:
        return quantize_weights(
            before,
            _bits(step, before, calibration, bench),
            group_size=step.group_size,
            method=step.method,
            scheme=step.scheme,
            calibration=calibration,
            example_inputs=task.example_inputs,
            embeddings=step.embeddings,
            keep=step.keep,
            batch_norm=calibration if step.batch_norm else None,
            equalize=step.equalize,
            bias_correction=step.bias_correction,
            power_of_two=step.power_of_two,
            reference=task.train,
            reconstruction=_reconstruction(step, bench.seed) if step.method == "blocks" else None,
            processes=bench.processes,
            progress=bench.progress,
        )
    return quantize_model(
        before,
        calibration,
        task.example_inputs,
        bits=dict(step.layers) if step.layers else step.bits,
        scheme=step.scheme,
        per_channel=step.per_channel,
        keep=step.keep,
        dynamic=step.dynamic,
        ranges=step.ranges,
        other_ranges=dict(step.other_ranges),
        percentile=step.percentile,
        reference=task.train,
        equalize=step.equalize,
        smooth=step.smooth,
        bias_correction=step.bias_correction,
        batch_norm=calibration if step.batch_norm else None,
        power_of_two=step.power_of_two,
        quantize=bench.engine.quantize,
        progress=bench.progress,
    )


def _reconstruction(step: Quantize, seed: int) -> Reconstruction:
    return Reconstruction(
        step.block_steps, step.block_batch, step.weight_rate, step.scale_rate, step.bias_rate, seed
    )


def _bits(step: Quantize, before: Compressed, calibration: Split, bench: Bench) -> int | Mapping[str, int]:
    """For all layers alike, by the step's table, or chosen under its budget by what each layer loses."""
    if step.budget_bytes is None and step.budget_ms is None:
        return dict(step.layers) if step.layers else step.bits
    measured = measure_sensitivity(
        before,
        calibration,
        bench.task.example_inputs,
        step.choices,
        scheme=step.scheme,
        group_size=step.group_size,
        embeddings=step.embeddings,
        keep=step.keep,
        cache=None if bench.checkpoint is None else bench.checkpoint.path,
        progress=bench.progress,
    )
    if step.budget_ms is not None:
        measured = measure_bit_latencies(
            measured,
            before,
            bench.task.example_inputs,
            scheme=step.scheme,
            group_size=step.group_size,
            progress=bench.progress,
        )
    mixed = choose_bits(measured, step.budget_bytes, budget_ms=step.budget_ms)
    if not mixed.bits:
        raise InputError(
            f"step {step.model_dump()}",
            f"all weights as floats take {mixed.weight_bytes} bytes"
            + ("" if mixed.latency_ms is None else f" and {mixed.latency_ms:.4g} ms")
            + ", so that the budget changes nothing",
            "Give less, or leave the step out",
        )
    return mixed.bits
