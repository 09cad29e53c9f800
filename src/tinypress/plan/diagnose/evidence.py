"""What speaks for one cause or another, gathered before any remedy is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinypress.diagnosis import LayerApart, LayerLoss
from tinypress.errors import TinypressError
from tinypress.facts import Compressed, Note
from tinypress.float_onnx import to_float_onnx
from tinypress.graph import batch_norm_pairs, trace
from tinypress.measure.side_by_side import layers_apart, output_snr
from tinypress.plan.diagnose.case import Attempt, Case, attempt
from tinypress.press.step import Quantize, Step, Structured
from tinypress.quantize.fold import fold_batch_norms
from tinypress.ship.to_onnx import to_onnx

MOST_LAYERS = 8
"""Layers whose cost in the metric is measured: those that differ most. Each takes a whole try."""

MOST_SAMPLES = 256

WIDE, CLIPPED, DEAD = 8.0, 0.01, 0.5
"""From where a channel counts as an outlier, clipping as much, and a range as mostly unused."""


@dataclass(frozen=True)
class Evidence:
    """The step that is looked into, and what its layers do: worst layer first in ``losses``."""

    place: int
    layers: tuple[LayerApart, ...] = ()
    losses: tuple[LayerLoss, ...] = ()
    notes: tuple[Note, ...] = ()


def compare_layers(case: Case, before: Compressed, after: Compressed) -> tuple[LayerApart, ...]:
    """Each quantized layer of ``after`` beside that of ``before``, on validation samples; none without a plan.

    Differences are up to a scale of each channel, because equalizing moves scales from one layer to the next.
    """
    if after.plan is None:
        return ()
    example = case.task.example_inputs
    folded = fold_batch_norms(before.model, batch_norm_pairs(trace(before.model, example)))
    weights = {
        name: value.detach().cpu().numpy()
        for name, value in after.model.named_parameters()
        if name in after.plan.weights
    }
    some = case.task.validation.take(slice(0, MOST_SAMPLES))
    return layers_apart(
        to_float_onnx(folded, example),
        to_onnx(after, example),
        after.plan,
        weights,
        some,
        progress=case.bench.progress,
    )


def snr(case: Case, tried: Attempt) -> float:
    """Signal-to-noise ratio of the network's outputs on validation, beside the baseline's."""
    return output_snr(case.baseline.outputs.numpy(), tried.evaluation.outputs.numpy())


def measures(case: Case, tried: Attempt) -> dict[str, float]:
    """What a trial says of it."""
    return {
        "validation": tried.evaluation.value,
        "loss": case.loss(tried.evaluation.value),
        "snr_db": snr(case, tried),
        "bytes": tried.path.stat().st_size + case.beside_bytes,
    }


def spare_each(
    case: Case, steps: Sequence[Step], place: int, now: Attempt, layers: Sequence[str]
) -> tuple[LayerLoss, ...]:
    """What validation gains where one layer is spared by the step at ``place``, the one that costs most first."""
    step = steps[place]
    found = []
    if not isinstance(step, Quantize | Structured):
        return ()  # other steps cannot name layers to spare
    worth = list(layers)[:MOST_LAYERS]
    for done, layer in enumerate(worth):
        case.bench.progress("sparing one layer at a time", done, len(worth))
        spared = step.model_copy(update={"keep": (*step.keep, layer)})
        try:
            tried = attempt(case, (*steps[:place], spared, *steps[place + 1 :]))
        except TinypressError:  # such as the only layer: nothing would be left to quantize
            continue
        gain = case.loss(now.evaluation.value) - case.loss(tried.evaluation.value)
        found.append(
            LayerLoss(layer=layer, validation=tried.evaluation.value, gain=gain, snr_db=snr(case, tried))
        )
    case.bench.progress("sparing one layer at a time", len(worth), len(worth))
    return tuple(sorted(found, key=lambda loss: (-loss.gain, -loss.snr_db)))


def worst_first(layers: Sequence[LayerApart]) -> list[str]:
    """Layers by how far the signal-to-noise ratio falls in them, from that of the layer before."""
    before = [max((layer.snr_db for layer in layers), default=0.0), *(layer.snr_db for layer in layers)]
    fall = {layer.layer: last - layer.snr_db for layer, last in zip(layers, before, strict=False)}
    return sorted(fall, key=lambda name: -fall[name])
