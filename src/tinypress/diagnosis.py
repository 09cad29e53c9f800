"""The diagnosis of one candidate of a run: which step and which layer lost quality, what was tried, what mended it.

Like the receipt, these are facts that are written as JSON and read back checked; pages and tables are made from them
alone. Qualities are in the metric's unit, losses in the tolerance's (points for accuracy); positive is worse.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tinypress.receipt import Artifact, Drop, Fact, Finding, Quality, Tolerance

Cause = Literal[
    "calibration data",
    "outlier channel",
    "range of activations",
    "sensitive layer",
    "rounding",
    "statistics of batch norm",
    "removed too much",
    "training",
]


class StepLoss(Fact):
    """What was lost on validation from the network before this step to the one after it."""

    technique: str
    about: str
    validation: float
    loss: float


class LayerApart(Fact):
    """One quantized layer beside its float self, both networks fed the same samples.

    ``snr_db`` is the signal-to-noise ratio of what later layers read, with all that went wrong before;
    ``weight_snr_db`` that of its weights alone. ``clipped`` is the share of float outputs beyond the quantized range,
    ``dead`` the share of that range which they never reach (both ``None`` where the output stays float).
    ``outlier`` is the largest magnitude of the channel ``outlier_channel`` over that of the median channel, for the
    outputs, and ``weight_outlier`` the same for the weights. A ratio without bound is written as 1e9.
    """

    layer: str
    bits: int
    snr_db: float
    weight_snr_db: float
    clipped: float | None
    dead: float | None
    outlier: float
    outlier_channel: int
    weight_outlier: float
    weight_outlier_channel: int


class LayerLoss(Fact):
    """What validation gains where this layer alone is spared: kept in float, or with none of its channels removed.

    ``snr_db`` is the signal-to-noise ratio of the network's outputs then.
    """

    layer: str
    validation: float
    gain: float
    snr_db: float


class Trial(Fact):
    """A remedy that was tried on top of those kept before it. ``changed`` says which settings, in words; ``left_out``
    that it helped then, and that the others do without it."""

    remedy: str
    cause: Cause
    about: str
    changed: str
    validation: float | None = None
    loss: float | None = None
    snr_db: float | None = None
    bytes: int | None = None
    kept: bool = False
    left_out: bool = False
    refused: str = ""
    seconds: float = 0.0


class Outcome(Fact):
    """An artifact and what it does on test, measured once."""

    artifact: Artifact
    validation: float
    validation_loss: float
    quality: Quality
    drop: Drop


class Diagnosis(Fact):
    """Why a candidate loses quality, and what was done about it."""

    format: Literal[1] = 1
    tinypress: str
    task: str
    candidate: str
    metric: str
    higher_is_better: bool
    tolerance: Tolerance
    baseline_validation: float
    samples: int
    step_losses: tuple[StepLoss, ...]
    layers: tuple[LayerApart, ...] = ()
    layers_after: tuple[LayerApart, ...] = ()
    layer_losses: tuple[LayerLoss, ...] = ()
    trials: tuple[Trial, ...] = ()
    findings: tuple[Finding, ...] = ()
    before: Outcome
    after: Outcome | None = None
    cause: Cause | None = None
    story: tuple[str, ...] = Field(default=())
    mended: bool
    steps: tuple[dict[str, Any], ...]
