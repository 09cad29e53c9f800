"""The menu: changes of a recipe's steps that may mend it, the cheapest first. Each is a function of the steps and the
evidence, and gives no steps where it does not apply.

The price is what a remedy costs whoever ships: first what is free once the file is written (another calibration, other
ranges, moved scales, corrected biases), then what keeps bytes or time (layers in float, more bits, neurons given
back), last what learns: the rounding of each layer alone, and then the whole network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from tinypress.diagnosis import Cause
from tinypress.plan.diagnose.evidence import CLIPPED, DEAD, Evidence
from tinypress.press.step import (
    Distill,
    Gradual,
    Magnitude,
    Qat,
    Quantize,
    Recover,
    Shrink,
    Step,
    Structured,
)

Steps = tuple[Step, ...]
Edit = Callable[[Steps, Evidence], Steps | None]


@dataclass(frozen=True)
class Remedy:
    """A change of the steps: what it is called, which cause it speaks for where it helps, and what it does."""

    name: str
    cause: Cause
    about: str
    edit: Edit


def _set(steps: Steps, place: int, **settings: object) -> Steps | None:
    """``steps`` with other settings at ``place``; none where they are so already."""
    step = steps[place]
    if all(getattr(step, name) == value for name, value in settings.items()):
        return None
    changed = type(step).model_validate({**step.model_dump(), **settings})
    return (*steps[:place], changed, *steps[place + 1 :])


# --- quantizing ------------------------------------------------------------------------------------------------------


def _calibrate_on_validation(steps: Steps, seen: Evidence) -> Steps | None:
    # tried only where something speaks against the samples: it spends the data that choices are made on
    noted = any(note.code in CALIBRATION_CODES for note in seen.notes)
    unused = [layer.dead for layer in seen.layers if layer.dead is not None]
    clipped = [layer.clipped for layer in seen.layers if layer.clipped is not None]
    elsewhere = bool(unused) and (median(unused) >= DEAD or median(clipped) >= CLIPPED)
    return _set(steps, seen.place, calibrate_on="validation") if noted or elsewhere else None


def _per_channel(steps: Steps, seen: Evidence) -> Steps | None:
    return _set(steps, seen.place, per_channel=True)


def _ranges(method: str) -> Edit:
    return lambda steps, seen: _set(steps, seen.place, ranges=method)


def _with(**settings: object) -> Edit:
    return lambda steps, seen: _set(steps, seen.place, **settings)


def _weights(**settings: object) -> Edit:
    """Settings of weights alone, which is what fewer than 8 bits are; they have scales for each channel."""
    return lambda steps, seen: _set(
        steps, seen.place, **{"weights_only": True, "per_channel": True, **settings}
    )


def _float_layers(count: int) -> Edit:
    """Keep the ``count`` layers in float that cost most where they are quantized."""

    def edit(steps: Steps, seen: Evidence) -> Steps | None:
        step = steps[seen.place]
        assert isinstance(step, Quantize)
        worst = [loss.layer for loss in seen.losses[:count]]
        if len(worst) < count or len(worst) >= len(seen.layers):
            return None
        return _set(steps, seen.place, keep=tuple(dict.fromkeys((*step.keep, *worst))))

    return edit


def _more_bits(steps: Steps, seen: Evidence) -> Steps | None:
    step = steps[seen.place]
    if not isinstance(step, Quantize):
        return None
    return _set(steps, seen.place, bits=step.bits + 1) if step.bits < 8 else None


def _train_quantized(steps: Steps, seen: Evidence) -> Steps | None:
    """A short training with fake quantization, from the outputs of the network that came in."""
    step = steps[seen.place]
    if not isinstance(step, Quantize):
        return None
    taught = Qat(
        bits=step.bits,
        scheme=step.scheme,
        group_size=step.group_size,
        weights_only=step.weights_only,
        embeddings=step.embeddings,
        keep=step.keep,
        distill=True,
    )
    return (*steps[: seen.place], taught, *steps[seen.place + 1 :])


ACTIVATIONS = (
    Remedy(
        "calibrate on validation data",
        "calibration data",
        "ranges from the data that the network is judged on",
        _calibrate_on_validation,
    ),
    Remedy(
        "scales per channel",
        "outlier channel",
        "one wide channel no longer sets the step of all",
        _per_channel,
    ),
    Remedy(
        "percentile ranges",
        "range of activations",
        "the rarest activations are clipped",
        _ranges("percentile"),
    ),
    Remedy(
        "least-squares ranges",
        "range of activations",
        "ranges that lose least in the mean square",
        _ranges("mse"),
    ),
    Remedy("entropy ranges", "range of activations", "ranges that keep the distribution", _ranges("entropy")),
    Remedy(
        "equalized layers",
        "outlier channel",
        "scales are moved from wide channels into the next layer",
        _with(equalize=True),
    ),
    Remedy(
        "corrected biases",
        "rounding",
        "the mean error of each channel is taken out of its bias",
        _with(bias_correction=True),
    ),
    Remedy(
        "one layer in float",
        "sensitive layer",
        "the layer that costs most is not quantized",
        _float_layers(1),
    ),
    Remedy(
        "two layers in float",
        "sensitive layer",
        "the two layers that cost most are not quantized",
        _float_layers(2),
    ),
    Remedy(
        "four layers in float",
        "sensitive layer",
        "the four layers that cost most are not quantized",
        _float_layers(4),
    ),
    Remedy("short training", "training", "it learns to live with its integers (QAT)", _train_quantized),
)

WEIGHTS = (
    Remedy(
        "least-squares scales",
        "rounding",
        "scales that lose least in the mean square",
        _weights(method="mse"),
    ),
    Remedy("half-quadratic scales", "rounding", "scales that bear outliers", _weights(method="hqq")),
    Remedy(
        "errors made good by later weights",
        "rounding",
        "GPTQ: what one rounding loses, the next weights give back",
        _weights(method="gptq"),
    ),
    Remedy(
        "corrected biases",
        "rounding",
        "the mean error of each channel is taken out of its bias",
        _weights(bias_correction=True),
    ),
    Remedy("groups of 32", "outlier channel", "a scale for every 32 weights", _weights(group_size=32)),
    Remedy(
        "one layer in float",
        "sensitive layer",
        "the layer that costs most is not quantized",
        _float_layers(1),
    ),
    Remedy("one bit more", "rounding", "each weight gets one bit more", _more_bits),
    Remedy(
        "learned rounding",
        "rounding",
        "AdaRound: which way each weight is rounded is learned layer by layer, without labels",
        _weights(method="adaround"),
    ),
    Remedy("short training", "training", "it learns to live with its integers (QAT)", _train_quantized),
)

# --- removing --------------------------------------------------------------------------------------------------------


def _give_back(steps: Steps, seen: Evidence) -> Steps | None:
    """A quarter of what was removed comes back."""
    step = steps[seen.place]
    match step:
        case Magnitude() | Gradual():
            return _set(steps, seen.place, sparsity=0.75 * step.sparsity)
        case Shrink():
            return _set(steps, seen.place, ratio=0.75 * step.ratio)
        case Structured(ratio=float(ratio)):
            return _set(steps, seen.place, ratio=0.75 * ratio)
        case _:
            return None


def _whole_layer(steps: Steps, seen: Evidence) -> Steps | None:
    step = steps[seen.place]
    if not isinstance(step, Structured) or not seen.losses:
        return None
    return _set(steps, seen.place, keep=tuple(dict.fromkeys((*step.keep, seen.losses[0].layer))))


def _fine_tune(steps: Steps, seen: Evidence) -> Steps | None:
    """A training step after the removal, or a longer one."""
    after = seen.place + 1
    if after < len(steps) and isinstance(steps[after], Recover | Distill):
        return None
    return (*steps[:after], Distill(), *steps[after:])


REMOVED = (
    Remedy(
        "the layer that costs most keeps its width",
        "removed too much",
        "its channels are given back",
        _whole_layer,
    ),
    Remedy("fine-tuning", "training", "the smaller network learns from the whole one", _fine_tune),
    Remedy(
        "a quarter given back", "removed too much", "a quarter of what was removed comes back", _give_back
    ),
    Remedy(
        "another quarter given back",
        "removed too much",
        "a quarter of what was removed comes back",
        _give_back,
    ),
)

CALIBRATION_CODES = frozenset({"TP220", "TP221", "TP222", "TP223", "TP224"})
"""Notes that speak against the calibration samples."""


def menu(steps: Steps, place: int) -> tuple[Remedy, ...]:
    """The remedies for the step at ``place``, the cheapest first."""
    step = steps[place]
    if isinstance(step, Quantize):
        return WEIGHTS if step.weights_only or step.bits < 8 else ACTIVATIONS
    return REMOVED
