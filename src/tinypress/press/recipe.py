"""A recipe: the list of steps that press one network, written by hand in TOML or JSON and checked before any work."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tinypress.errors import InputError, RecipeError
from tinypress.prune.model import check_pruning


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # a signature here would hide the fields from the type checker

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                given = ", ".join(f"{key}={_short(value)}" for key, value in values.items())
                raise RecipeError(f"{type(self).__name__}({given})", *_explain(error)) from error


class Magnitude(_Strict):
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


class Gradual(_Strict):
    """Zero the smallest weights little by little while the network recovers on the labels."""

    technique: Literal["gradual"] = "gradual"
    sparsity: float = Field(strict=True, ge=0, le=1)
    scope: Literal["global", "layer"] = "global"
    allocation: Literal["uniform", "erk", "lamp"] | None = None
    end: float = Field(default=0.5, strict=True, gt=0, le=1)
    every: int = Field(default=10, strict=True, ge=1)
    epochs: int | None = Field(default=None, strict=True, ge=1)


class Shrink(_Strict):
    """Remove a share of the neurons of every layer that can lose some."""

    technique: Literal["shrink"] = "shrink"
    ratio: float = Field(strict=True, ge=0, lt=1)
    importance: Literal["l1", "l2", "variance", "activation", "random"] = "l2"


class Structured(_Strict):
    """Remove neurons, channels and heads of any architecture, by a share or down to a budget.

    Give one of ``ratio``, ``parameters``, ``bytes``, ``macs`` (a whole number, or a fraction of what it costs now) and
    ``latency_ms`` (of one sample in ONNX Runtime). With ``rounds`` the goal is reached in so many cuts, with
    ``epochs`` of recovery between them.
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
    per: Literal["parameters", "bytes", "macs"] | None = None
    units: Literal["heads", "head width"] = "heads"
    keep: tuple[str, ...] = ()
    multiple: int = Field(default=1, strict=True, ge=1)
    min_width: int = Field(default=1, strict=True, ge=1)
    rounds: int = Field(default=1, strict=True, ge=1)
    epochs: int = Field(default=1, strict=True, ge=1)

    @model_validator(mode="after")
    def _one_goal(self) -> Structured:
        _exactly_one(self, "ratio", "parameters", "bytes", "macs", "latency_ms")
        return self


class Factorize(_Strict):
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


class Student(_Strict):
    """Start again from an untrained network, each layer smaller by ``ratio``."""

    technique: Literal["student"] = "student"
    ratio: float = Field(strict=True, ge=0, lt=1)


class Recover(_Strict):
    """Train on the labels; zeros stay zero."""

    technique: Literal["recover"] = "recover"
    epochs: int | None = Field(default=None, strict=True, ge=1)


class Distill(_Strict):
    """Train on the labels and on the outputs of the network that came in; zeros stay zero."""

    technique: Literal["distill"] = "distill"
    temperature: float = Field(default=4.0, strict=True, gt=0)
    alpha: float = Field(default=0.7, strict=True, ge=0, le=1)
    epochs: int | None = Field(default=None, strict=True, ge=1)


class Quantize(_Strict):
    """Pack weights into integers and, at 8 bits and unless ``weights_only``, calibrate the activations.

    ``group_size``, ``method``, ``embeddings`` and ``keep`` are those of ``quantize_weights``.
    """

    technique: Literal["quantize"] = "quantize"
    bits: int = Field(default=8, strict=True, ge=2, le=8)
    scheme: Literal["symmetric", "affine"] = "symmetric"
    per_channel: bool = Field(default=True, strict=True)
    calibration_samples: int = Field(default=256, strict=True, ge=1)
    weights_only: bool = Field(default=False, strict=True)
    group_size: int | None = Field(default=None, strict=True, ge=1, lt=2**31)
    method: Literal["nearest", "mse", "hqq", "gptq", "awq"] = "nearest"
    embeddings: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        only = {"group_size": None, "method": "nearest", "embeddings": (), "keep": ()}
        given = [name for name, usual in only.items() if getattr(self, name) != usual]
        if given and not self.weights_only:
            raise ValueError(f"{given[0]} needs weights_only = true")
        if self.weights_only and not self.per_channel:
            raise ValueError("weights_only has scales for each channel or group")
        return self


STEPS = (Magnitude, Gradual, Shrink, Structured, Factorize, Student, Recover, Distill, Quantize)
Step = Magnitude | Gradual | Shrink | Structured | Factorize | Student | Recover | Distill | Quantize
_ByTechnique = Annotated[Step, Field(discriminator="technique")]
_ANY_STEP: TypeAdapter[Step] = TypeAdapter(_ByTechnique)
_TECHNIQUES: dict[str, type[BaseModel]] = {step.model_fields["technique"].default: step for step in STEPS}
Shipment = Literal["onnx", "archive"]


class Recipe(_Strict):
    """One candidate: its steps, what its file is for (``ship``) and, for a control, what it is the control of."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9+._-]{0,60}$")
    about: str = ""
    role: Literal["baseline", "candidate", "control"] = "candidate"
    control_of: str | None = None
    steps: tuple[_ByTechnique, ...] = ()
    ship: tuple[Shipment, ...] = Field(default=("onnx",), min_length=1)


class RecipeFile(_Strict):
    """What a recipe file may hold: one network's recipes and, optionally, the seed and the tolerance."""

    task: str | None = None
    seed: int | None = Field(default=None, strict=True, ge=0)
    threads: int | None = Field(default=None, strict=True, ge=1)
    tolerance: float | None = Field(default=None, strict=True, ge=0)
    recipes: tuple[Recipe, ...] = Field(min_length=1)


def read_recipes(path: Path) -> RecipeFile:
    """Read and check a recipe file. A file with ``steps`` at its top level is a single recipe.

    Raises:
        RecipeError: the file cannot be read; a technique, key or value is unknown (the nearest right one is
            named); steps stand in an order that cannot work.
    """
    call = f"read_recipes({path.name})"
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise RecipeError(call, f"the file cannot be read ({error.strerror})", "Check its path") from error
    except (ValueError, RecursionError) as error:  # of syntax, encoding, digits or depth
        form = "TOML" if path.suffix == ".toml" else "JSON"
        raise RecipeError(call, f"it is not valid {form}: {_short(error, str)}", "Mend the syntax") from error
    if not isinstance(raw, dict):
        raise RecipeError(call, "it does not hold a table", "See `tinypress press --help` for an example")
    if "steps" in raw and "recipes" not in raw:
        common = {key: raw.pop(key) for key in ("task", "seed", "threads", "tolerance") if key in raw}
        name = re.sub(r"[^a-z0-9+._-]", "-", path.stem.lower()).lstrip("+._-")[:60] or "recipe"
        raw = {**common, "recipes": [{"name": name, **raw}]}
    return parse_recipes(call, raw)


def parse_recipes(call: str, raw: dict[str, Any]) -> RecipeFile:
    """Check recipes given as plain data; see ``read_recipes``."""
    _check_keys(call, "a recipe file", raw, RecipeFile)
    recipes = raw.get("recipes")
    for recipe in recipes if isinstance(recipes, list) else ():
        if not isinstance(recipe, dict):
            raise RecipeError(call, f"a recipe is no table: {_short(recipe)}", "Give it a name and steps")
        _check_keys(call, f"recipe {_short(recipe.get('name'))}", recipe, Recipe)
        steps = recipe.get("steps")
        for step in steps if isinstance(steps, list | tuple) else ():
            _check_names(call, step)
    try:
        file = RecipeFile.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(call, *_explain(error)) from error
    names = [recipe.name for recipe in file.recipes]
    if len(set(names)) != len(names):
        raise RecipeError(call, f"two recipes have one name: {sorted(names)}", "Name each differently")
    for recipe in file.recipes:
        check_order(call, recipe)
    return file


def check_order(call: str, recipe: Recipe) -> None:
    """Refuse, before any work, an order of steps that would undo or contradict itself."""
    kinds = [step.technique for step in recipe.steps]
    if "quantize" in kinds and kinds.index("quantize") != len(kinds) - 1:
        late = kinds[kinds.index("quantize") + 1]
        raise RecipeError(
            call,
            f"{recipe.name!r} has {late!r} after 'quantize': it would move weights off their integers",
            "Put 'quantize' last",
        )
    zeroing = {"magnitude", "gradual"}
    if "factorize" in kinds and (early := zeroing & set(kinds[: kinds.index("factorize")])):
        raise RecipeError(
            call,
            f"{recipe.name!r} has 'factorize' after {min(early)!r}: a product of two layers would fill the zeros again",
            "Put 'factorize' first",
        )
    if "student" in kinds[1:]:
        raise RecipeError(
            call, f"{recipe.name!r} throws earlier steps away with a new 'student'", "Put 'student' first"
        )
    if "student" in kinds and not {"gradual", "recover", "distill"} & set(kinds):
        raise RecipeError(
            call, f"{recipe.name!r} never trains its 'student'", "Add a 'recover' or 'distill' step"
        )


def _check_names(call: str, step: Any) -> None:
    if not isinstance(step, dict) or "technique" not in step:
        raise RecipeError(
            call, f"a step names no technique: {_short(step)}", f"Use one of {sorted(_TECHNIQUES)}"
        )
    technique = step["technique"]
    if not isinstance(technique, str) or technique not in _TECHNIQUES:
        raise RecipeError(
            call,
            f"there is no technique {_short(technique)}",
            _nearest(technique if isinstance(technique, str) else "", sorted(_TECHNIQUES)),
        )
    _check_keys(call, repr(technique), step, _TECHNIQUES[technique])


def _check_keys(call: str, what: str, given: dict[str, Any], fields: type[BaseModel]) -> None:
    known = sorted(fields.model_fields)
    for key in given:
        if key not in known:
            raise RecipeError(call, f"{what} has no setting {_short(key)}", _nearest(str(key), known))


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Use one of {known}"


def _short(value: object, shown: Callable[[object], str] = repr) -> str:
    """``value`` as text that fits a message, however long or deep it is."""
    try:
        text = shown(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 120 else text[:117] + "..."


def _explain(error: ValidationError) -> tuple[str, str]:
    """The first problem and its remedy."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, RecipeError):  # of a step or recipe inside
        return f"{place}: {inner.problem}", inner.remedy
    given = first.get("input")
    problem = f"{place}: {first['msg']} (got {_short(given)})"
    if first["type"] == "literal_error" and isinstance(given, str):
        return problem, _nearest(given, re.findall("'([^']+)'", str(first.get("ctx", {}).get("expected"))))
    return problem, "Correct the recipe"


def step_from(raw: dict[str, Any]) -> Step:
    """One checked step from plain data."""
    call = f"step_from({_short(raw)})"
    _check_names(call, raw)
    try:
        return _ANY_STEP.validate_python(raw)
    except ValidationError as error:
        raise RecipeError(call, *_explain(error)) from error
