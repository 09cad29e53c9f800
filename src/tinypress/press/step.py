"""The steps that a recipe can have: the settings of each technique, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, TypeAdapter, model_validator

from tinypress.errors import InputError, RecipeError
from tinypress.press.strict import Strict
from tinypress.prune.model import check_pruning
from tinypress.quantize.ranges import Ranges
from tinypress.shrink.budget import AMOUNT, is_amount


def _pairs(given: object) -> object:
    """A table of names as pairs, which can be hashed."""
    return tuple(given.items()) if isinstance(given, Mapping) else given


BitsByLayer = Annotated[
    tuple[tuple[str, Annotated[int, Field(strict=True, ge=2, le=8)]], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict),
]
"""A table of layer = bits; kept as pairs, so that a step can be looked up by its settings."""

Copies = Annotated[int, Field(strict=True, ge=1)]
"""How often a training sees each sample in an epoch: once as it is, and then as the task's ``augment`` varies it."""

LayerByLayer = Annotated[tuple[tuple[str, str], ...], BeforeValidator(_pairs), PlainSerializer(dict)]
"""A table of layer = layer, kept alike."""


class Magnitude(Strict):
    """Zero the smallest weights (or, as a control, random ones)."""

    technique: Literal["magnitude"] = "magnitude"
    sparsity: float = Field(strict=True, ge=0, le=1)
    scope: Literal["global", "layer"] = "global"
    score: Literal["magnitude", "random"] = "magnitude"
    pattern: str | None = None
    allocation: Literal["uniform", "erk", "lamp"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            check_pruning(
                "magnitude", self.sparsity, self.score == "magnitude", self.pattern, self.allocation
            )
        except InputError as error:
            raise RecipeError(error.call, error.problem, error.remedy) from error
        return self


class Gradual(Strict):
    """Zero the smallest weights little by little while the network recovers on the labels."""

    technique: Literal["gradual"] = "gradual"
    sparsity: float = Field(strict=True, ge=0, le=1)
    scope: Literal["global", "layer"] = "global"
    allocation: Literal["uniform", "erk", "lamp"] | None = None
    end: float = Field(default=0.5, strict=True, gt=0, le=1)
    every: int = Field(default=10, strict=True, ge=1)
    epochs: int | None = Field(default=None, strict=True, ge=1)
    copies: Copies = 1


class Shrink(Strict):
    """Remove a share of the neurons of every layer that can lose some."""

    technique: Literal["shrink"] = "shrink"
    ratio: float = Field(strict=True, ge=0, lt=1)
    importance: Literal["l1", "l2", "variance", "activation", "random"] = "l2"


class Structured(Strict):
    """Remove neurons, channels and heads of any architecture, by a share or down to a budget.

    Give one of ``ratio``, ``parameters``, ``bytes``, ``macs`` (a whole number, or a fraction of what it costs now) and
    ``latency_ms`` (of one sample in ONNX Runtime). Units are ranked by importance, or by importance ``per`` what one
    costs; for ``per = "latency_ms"`` the layers are timed first. With ``rounds`` the goal is reached in so many cuts,
    with ``epochs`` of recovery between them.

    With ``search`` widths, heads and layers leave where they cost least quality (``search_architecture``): every
    proposal is trained for ``epochs`` and evaluated on validation. For ``latency_ms`` the layers are timed first.
    """

    technique: Literal["structured"] = "structured"
    ratio: float | None = Field(default=None, strict=True, ge=0, lt=1)
    parameters: float | None = Field(default=None, strict=True, gt=0)
    bytes: float | None = Field(default=None, strict=True, gt=0)
    macs: float | None = Field(default=None, strict=True, gt=0)
    latency_ms: float | None = Field(default=None, strict=True, gt=0)
    importance: Literal["l1", "l2", "scale", "fpgm", "taylor", "hessian", "activation", "wanda", "random"] = (
        "l2"
    )
    scope: Literal["group", "global"] = "group"
    per: Literal["parameters", "bytes", "macs", "latency_ms"] | None = None
    units: Literal["heads", "head width"] = "heads"
    keep: tuple[str, ...] = ()
    multiple: int = Field(default=1, strict=True, ge=1)
    min_width: int = Field(default=1, strict=True, ge=1)
    rounds: int = Field(default=1, strict=True, ge=1)
    epochs: int = Field(default=1, strict=True, ge=1)
    search: bool = False

    @model_validator(mode="after")
    def _one_goal(self) -> Structured:
        _exactly_one(self, "ratio", "parameters", "bytes", "macs", "latency_ms")
        for name in ("parameters", "bytes", "macs"):
            most = getattr(self, name)
            if most is not None and not is_amount(most):
                raise ValueError(f"{name} is {most:g}: give {AMOUNT}")
        if self.search:
            self._can_search()
        return self

    def _can_search(self) -> None:
        if self.ratio is not None:
            raise ValueError("search needs a budget: give parameters, bytes, macs or latency_ms, not ratio")
        other = _changed(self, "scope", "per", "units", "rounds")
        if other is not None:
            raise ValueError(f"search has no {other}: it makes one cut at a time, where quality says")
        if self.importance not in ("l1", "l2", "scale", "fpgm", "random"):
            raise ValueError(
                f"search has no importance {self.importance!r}, which needs data for every proposal"
            )


class Factorize(Strict):
    """Two thinner layers for one: by the share of ``energy`` to keep, down to ``parameters``, or ``separable``."""

    technique: Literal["factorize"] = "factorize"
    energy: float | None = Field(default=None, strict=True, gt=0, le=1)
    parameters: float | None = Field(default=None, strict=True, gt=0)
    separable: Literal[True] | None = None
    keep: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Factorize:
        _exactly_one(self, "energy", "parameters", "separable")
        return self


def _exactly_one(step: BaseModel, *names: str) -> None:
    given = [name for name in names if getattr(step, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give one of {', '.join(names)}, not {' and '.join(given) or 'none'}")


class Layers(Strict):
    """Remove residual blocks or transformer layers whole: those that matter least, or every second one."""

    technique: Literal["layers"] = "layers"
    count: int | None = Field(default=None, strict=True, ge=1)
    ratio: float | None = Field(default=None, strict=True, gt=0, lt=1)
    by: Literal["effect", "alternate"] = "effect"
    keep: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Layers:
        if self.by == "effect" or (self.count is not None and self.ratio is not None):
            _exactly_one(self, "count", "ratio")
        return self


class Student(Strict):
    """Start again from an untrained network, each layer smaller by ``ratio``."""

    technique: Literal["student"] = "student"
    ratio: float = Field(strict=True, ge=0, lt=1)


class Recover(Strict):
    """Train on the labels; zeros stay zero."""

    technique: Literal["recover"] = "recover"
    epochs: int | None = Field(default=None, strict=True, ge=1)
    copies: Copies = 1


class Distill(Strict):
    """Train on the labels and on the outputs of the network that came in; zeros stay zero.

    ``loss = "independent"`` is for logits of classes that do not exclude each other. With ``loss = "embeddings"``
    the outputs [B, D] are taught without labels: each near the teacher's own and nearer to it than to the others of
    the batch. ``hidden`` adds hidden states [B, T, D], by pairs of layers {student's: teacher's}, at the tokens that
    the network's input ``mask_input`` marks; they are kept in memory and on disk.
    """

    technique: Literal["distill"] = "distill"
    loss: Literal["labels", "independent", "embeddings"] = "labels"
    temperature: float = Field(default=4.0, strict=True, gt=0)
    alpha: float = Field(default=0.7, strict=True, ge=0, le=1)
    hidden: LayerByLayer = ()
    mask_input: int = Field(default=1, strict=True, ge=0)
    epochs: int | None = Field(default=None, strict=True, ge=1)
    copies: Copies = 1
    learning_rate: float | None = Field(default=None, strict=True, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden and self.loss != "embeddings":
            raise ValueError('hidden needs loss = "embeddings"')
        return self


def _changed(step: BaseModel, *names: str) -> str | None:
    """The first of the settings that is not the usual one."""
    return next(
        (name for name in names if getattr(step, name) != type(step).model_fields[name].default), None
    )


_OF_RANGES = ("ranges", "percentile", "other_ranges")


class Quantize(Strict):
    """Pack weights into integers and, at 8 bits and unless ``weights_only``, calibrate the activations.

    ``group_size``, ``method`` and ``embeddings`` are those of ``quantize_weights``; ``ranges``, ``percentile`` and
    ``other_ranges`` those of ``quantize_model``; ``keep`` names layers that stay float; ``calibrate_on`` the split that
    calibration samples are drawn from.
    ``layers`` gives bits by layer in place of ``bits``, and layers without a name then stay float. ``budget_bytes`` (a
    whole number, or a fraction of the float weights) chooses for each layer among ``choices`` or float: least loss,
    measured on samples. ``budget_ms`` does so under the time of all layers, each timed alone in ONNX Runtime.
    With ``batch_norm`` its moments are estimated again on the calibration samples, behind quantized weights.
    With ``dynamic`` all layers, or those named, round their input at run time and need no ranges: LSTM too.
    With ``method = "blocks"`` each block of layers learns without labels to make what the float block makes, for
    ``block_steps`` steps on batches of ``block_batch`` samples; the rates are those of ``Reconstruction``.
    ``equalize`` shares out ranges among neighbouring layers first, ``smooth`` is the alpha with which SmoothQuant moves
    outliers into weights; ``bias_correction`` puts back the means that rounding moved. With ``power_of_two`` all scales
    are powers of two.
    """

    technique: Literal["quantize"] = "quantize"
    bits: int = Field(default=8, strict=True, ge=2, le=8)
    layers: BitsByLayer = ()
    budget_bytes: float | None = Field(default=None, strict=True, gt=0)
    budget_ms: float | None = Field(default=None, strict=True, gt=0)
    choices: tuple[Annotated[int, Field(strict=True, ge=2, le=8)], ...] = (8, 6, 5, 4, 3, 2)
    scheme: Literal["symmetric", "affine"] = "symmetric"
    per_channel: bool = Field(default=True, strict=True)
    calibration_samples: int = Field(default=256, strict=True, ge=1)
    calibrate_on: Literal["train", "validation"] = "train"
    weights_only: bool = Field(default=False, strict=True)
    group_size: int | None = Field(default=None, strict=True, ge=1, lt=2**31)
    method: Literal["nearest", "mse", "hqq", "gptq", "awq", "adaround", "blocks"] = "nearest"
    block_steps: int = Field(default=300, strict=True, ge=1)
    block_batch: int = Field(default=32, strict=True, ge=1)
    weight_rate: float = Field(default=0.02, strict=True, ge=0)
    scale_rate: float = Field(default=1e-3, strict=True, ge=0)
    bias_rate: float = Field(default=1e-3, strict=True, ge=0)
    embeddings: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    dynamic: bool | tuple[str, ...] = False
    batch_norm: bool = Field(default=False, strict=True)
    ranges: Ranges = "minmax"
    percentile: float = Field(default=0.9999, strict=True, gt=0.5, le=1)
    equalize: bool = Field(default=False, strict=True)
    smooth: float | None = Field(default=None, strict=True, ge=0, le=1)
    bias_correction: bool = Field(default=False, strict=True)
    other_ranges: Annotated[tuple[tuple[str, Ranges], ...], BeforeValidator(_pairs)] = ()
    power_of_two: bool = Field(default=False, strict=True)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.power_of_two and (self.batch_norm or self.method == "blocks"):
            raise ValueError('power_of_two fixes scales, which batch_norm and method = "blocks" change')
        if (
            given := _changed(self, "budget_bytes", "budget_ms", "group_size", "method", "embeddings")
        ) and not self.weights_only:
            raise ValueError(f"{given} needs weights_only = true")
        whole = not self.weights_only and self.bits == 8 and self.scheme == "symmetric"
        if (given := _changed(self, "ranges", "percentile", "other_ranges", "smooth")) and not whole:
            raise ValueError(f"{given} is of activations, which 8 symmetric bits without weights_only have")
        if self.dynamic and (not whole or (self.dynamic is True and _changed(self, *_OF_RANGES))):
            raise ValueError("dynamic needs 8 symmetric bits without weights_only, and has no ranges")
        learning = _changed(self, "block_steps", "block_batch", "weight_rate", "scale_rate", "bias_rate")
        if learning and self.method != "blocks":
            raise ValueError(f'{learning} needs method = "blocks"')
        if self.method == "blocks" and self.batch_norm:
            raise ValueError('method = "blocks" folds batch norm and learns what batch_norm would change')
        if self.weights_only and not self.per_channel:
            raise ValueError("weights_only has scales for each channel or group")
        if self.layers and (self.budget_bytes is not None or self.budget_ms is not None):
            raise ValueError("give layers, or a budget_bytes that chooses them (or budget_ms)")
        if not self.choices or len(set(self.choices)) != len(self.choices):
            raise ValueError("choices are none, or one of them twice")
        return self


class Qat(Strict):
    """Train with fake-quantized weights and activations (QAT), then pack; zeros stay zero.

    It learns from the labels, or with ``distill`` from the outputs of the network that came in, by ``temperature`` and
    ``alpha``; at alpha 1 no label is looked at. ``loss = "embeddings"`` teaches them as in ``distill``. The
    others are those of ``QuantizedTraining``; ``layers`` gives bits by layer in place of ``bits``, and layers without a
    name then stay float.
    """

    technique: Literal["qat"] = "qat"
    bits: int = Field(default=8, strict=True, ge=2, le=8)
    layers: BitsByLayer = ()
    scheme: Literal["symmetric", "affine"] = "symmetric"
    group_size: int | None = Field(default=None, strict=True, ge=1, lt=2**31)
    weights_only: bool = Field(default=False, strict=True)
    learned_step: bool = Field(default=True, strict=True)
    freeze: float = Field(default=0.5, strict=True, ge=0, le=1)
    distill: bool = Field(default=False, strict=True)
    loss: Literal["labels", "embeddings"] = "labels"
    temperature: float = Field(default=1.0, strict=True, gt=0)
    alpha: float = Field(default=1.0, strict=True, ge=0, le=1)
    epochs: int | None = Field(default=None, strict=True, ge=1)
    copies: Copies = 1
    learning_rate: float | None = Field(default=None, strict=True, gt=0)
    embeddings: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.loss == "embeddings" and (not self.distill or self.alpha != 1):
            raise ValueError('loss = "embeddings" needs distill = true and alpha = 1')
        return self


STEPS = (Magnitude, Gradual, Shrink, Structured, Factorize, Layers, Student, Recover, Distill, Quantize, Qat)
Step = (
    Magnitude
    | Gradual
    | Shrink
    | Structured
    | Factorize
    | Layers
    | Student
    | Recover
    | Distill
    | Quantize
    | Qat
)
ByTechnique = Annotated[Step, Field(discriminator="technique")]
ANY_STEP: TypeAdapter[Step] = TypeAdapter(ByTechnique)
TECHNIQUES: dict[str, type[BaseModel]] = {step.model_fields["technique"].default: step for step in STEPS}
