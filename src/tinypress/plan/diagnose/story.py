"""The diagnosis in sentences: where quality went, what the evidence is, what helped."""

from __future__ import annotations

from collections.abc import Sequence

from tinypress.diagnosis import Cause, LayerApart, LayerLoss, StepLoss, Trial
from tinypress.plan.diagnose.evidence import CLIPPED, DEAD, WIDE
from tinypress.receipt import Tolerance


def tell(
    step_losses: Sequence[StepLoss],
    layers: Sequence[LayerApart],
    layer_losses: Sequence[LayerLoss],
    trials: Sequence[Trial],
    tolerance: Tolerance,
    mended: bool,
) -> tuple[str, ...]:
    """The story, a sentence an entry."""
    unit = " points" if tolerance.unit == "points" else ""
    total = sum(step.loss for step in step_losses)
    told = [f"The candidate loses {total:.3g}{unit} on validation; {tolerance.value:g}{unit} are allowed"]
    worst = max(step_losses, key=lambda step: step.loss, default=None)
    if worst is not None and worst.loss > 0:
        told.append(f"The step {worst.technique!r} loses most of it: {worst.loss:.3g}{unit}")
    if layer_losses and layer_losses[0].gain > 0:
        first = layer_losses[0]
        told.append(f"Sparing the layer {first.layer!r} alone brings {first.gain:.3g}{unit} back")
    told += _seen(layers)
    kept = [trial for trial in trials if trial.kept]
    told += [
        f"What helped: {trial.remedy} ({trial.about}), to a loss of {trial.loss:.3g}{unit}" for trial in kept
    ]
    left_out = [trial.remedy for trial in trials if trial.left_out]
    if left_out:
        told.append(f"Left out again, since the rest does without: {', '.join(left_out)}")
    if trials and not kept:
        told.append(f"None of {len(trials)} remedies helped")
    elif trials and not mended:
        told.append("The loss is still beyond the tolerance")
    return tuple(told)


def _seen(layers: Sequence[LayerApart]) -> list[str]:
    """The one layer whose numbers stand out most, of each kind."""
    told = []
    wide = max(layers, key=lambda layer: layer.outlier, default=None)
    if wide is not None and wide.outlier >= WIDE:
        told.append(
            f"Channel {wide.outlier_channel} of {wide.layer!r} reaches {wide.outlier:.0f} times as far as "
            "its median channel"
        )
    heavy = max(layers, key=lambda layer: layer.weight_outlier, default=None)
    if heavy is not None and heavy.weight_outlier >= WIDE:
        told.append(
            f"The weights of channel {heavy.weight_outlier_channel} of {heavy.layer!r} are "
            f"{heavy.weight_outlier:.0f} times as large as those of its median channel"
        )
    clipped = max(layers, key=lambda layer: layer.clipped or 0.0, default=None)
    if clipped is not None and (clipped.clipped or 0.0) >= CLIPPED:
        told.append(
            f"{clipped.clipped:.0%} of the outputs of {clipped.layer!r} lie beyond its range and are clipped"
        )
    dead = max(layers, key=lambda layer: layer.dead or 0.0, default=None)
    if dead is not None and (dead.dead or 0.0) >= DEAD:
        told.append(f"{dead.dead:.0%} of the range of {dead.layer!r} is never reached")
    return told


def the_cause(trials: Sequence[Trial], loss: float, layers: Sequence[LayerApart]) -> Cause | None:
    """What the kept remedy speaks for that brought most of ``loss`` back; none where nothing helped.

    A range that clips helps against an outlier channel too: then the channel is the cause, not the range.
    """
    cause: Cause | None = None
    most = float("-inf")
    for trial in trials:
        if not trial.kept or trial.loss is None:
            continue
        if loss - trial.loss > most:
            most, cause = loss - trial.loss, trial.cause
        loss = trial.loss
    wide = any(max(layer.outlier, layer.weight_outlier) >= WIDE for layer in layers)
    return "outlier channel" if cause == "range of activations" and wide else cause
