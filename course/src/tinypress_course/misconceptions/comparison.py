"""Mistakes that people make when they compare techniques."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tinypress_course import kit
from tinypress_course.checks import comparison
from tinypress_course.checks.base import Answer, Case
from tinypress_course.kit import Recipe
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.models import Plain

Rows = dict[str, dict[str, Any]]

_RECOVER: Plain = {"technique": "recover"}
_DISTILL: Plain = {"technique": "distill"}
_INT8: Plain = {"technique": "quantize", "bits": 8}
_SHRINK: Plain = {"technique": "shrink", "ratio": 0.5}
_SMALL: Plain = {"technique": "student", "ratio": 0.5}
_PRUNED: Plain = {"technique": "magnitude", "sparsity": 0.8}
_RANDOM: Plain = {**_PRUNED, "score": "random"}
_BOTH = ("onnx", "archive")


def _right() -> Rows:
    return {
        "fp32": {"role": "baseline"},
        "prune": {"steps": (_PRUNED, _RECOVER), "ship": _BOTH},
        "int8": {"steps": (_INT8,)},
        "shrink": {"steps": (_SHRINK, _RECOVER)},
        "distill": {"steps": (_SMALL, _DISTILL)},
        "prune+int8": {"steps": (_PRUNED, _RECOVER, _INT8), "ship": _BOTH},
        "prune-random": {"role": "control", "control_of": "prune", "steps": (_RANDOM, _RECOVER)},
        "small-dense": {"role": "control", "control_of": "distill", "steps": (_SMALL, _RECOVER)},
    }


def _compare(
    task: Any,
    out: Path,
    *,
    engine: Any = None,
    seed: int = 0,
    change: Callable[[Rows], object] = lambda rows: rows,
    first: str = "fp32",
    names: Callable[[str], str] = lambda name: name,
    settings: Callable[[Any, int], dict[str, Any]] = lambda engine, seed: {"engine": engine, "seed": seed},
    place: Callable[[Path], Path] = lambda out: out,
    one_by_one: bool = False,
    returned: Callable[[Any], Any] = lambda receipt: receipt,
) -> Any:
    """The comparison with places for mistakes; with none of them it agrees with the statement."""
    rows = _right()
    change(rows)
    ordered = sorted(rows, key=lambda name: name != first)
    recipes = [Recipe(name=names(name), **rows[name]) for name in ordered]
    receipt: Any = None
    for some in [[each] for each in recipes] if one_by_one else [recipes]:
        receipt = kit.press(task, some, place(out), **settings(engine, seed))
    return returned(receipt)


def _without(*names: str) -> Callable[[Rows], object]:
    return lambda rows: [rows.pop(name) for name in names]


def _with(name: str, **fields: Any) -> Callable[[Rows], object]:
    return lambda rows: rows[name].update(fields)


def _shown(*findings: comparison.Finding) -> Callable[[Case, Answer], Plain]:
    return lambda case, answer: [finding(case, answer) for finding in findings]


def _m(name: str, says: str, *findings: comparison.Finding, **mistake: Any) -> Misconception:
    implementation = partial(_compare, **mistake)
    return Misconception(
        "compare_compression_techniques", name, says, implementation, reads=_shown(*findings), right=_compare
    )


def _no_pruning(rows: Rows) -> None:
    del rows["prune"]
    rows["prune-random"]["control_of"] = "prune+int8"
    rows["prune-random"]["steps"] = (_RANDOM, _RECOVER, _INT8)


def _quantized_first(rows: Rows) -> None:
    rows["prune+int8"]["steps"] = (_INT8, _PRUNED, _RECOVER)


def _controls_swapped(rows: Rows) -> None:
    rows["prune-random"]["control_of"], rows["small-dense"]["control_of"] = "distill", "prune"


MISCONCEPTIONS: tuple[Misconception, ...] = (
    _m(
        "seed not passed on",
        "press does not get the seed: two seeds give the same comparison.",
        comparison.lost,
        settings=lambda engine, seed: {"engine": engine},
    ),
    _m(
        "engine not passed on",
        "press does not get the engine: it is the toolkit's functions that are compared, and not yours.",
        comparison.lost,
        settings=lambda engine, seed: {"seed": seed},
    ),
    _m(
        "nothing passed on",
        "press gets neither engine nor seed.",
        comparison.lost,
        settings=lambda engine, seed: {},
    ),
    _m(
        "fixed folder",
        "press writes into a folder of your own choice, and not into the one that was asked for.",
        comparison.lost,
        place=lambda out: Path("runs"),
    ),
    _m(
        "one press for each recipe",
        "press is called for each recipe: each run would then have its own baseline, measured at another time.",
        comparison.calls,
        one_by_one=True,
    ),
    _m(
        "never pressed",
        "The recipes are there, and press is never called.",
        comparison.calls,
        one_by_one=True,
        change=lambda rows: rows.clear(),
    ),
    _m(
        "receipt lost",
        "The receipt is not returned: all was measured, and nobody can read it.",
        comparison.came_back,
        returned=lambda receipt: None,
    ),
    _m(
        "baseline missing",
        "There is no baseline: smaller and faster than what?",
        comparison.baseline,
        change=_without("fp32"),
    ),
    _m(
        "baseline not called so",
        "No recipe has the role of the baseline.",
        comparison.baseline,
        change=_with("fp32", role="candidate"),
    ),
    _m(
        "baseline not first",
        "The baseline does not come first; everything after it is measured against it.",
        comparison.baseline,
        first="prune",
    ),
    _m(
        "baseline trained",
        "The baseline is trained on: then the network that came in is compared with nothing.",
        comparison.baseline,
        change=_with("fp32", steps=(_RECOVER,)),
    ),
    _m(
        "one name for all",
        "Several recipes have the same name; a control can only be told by it.",
        comparison.doubled,
        names=lambda name: "recipe" if name in ("int8", "shrink") else name,
    ),
    _m(
        "pruning missing alone",
        "No candidate prunes and does nothing else.",
        comparison.missing,
        change=_no_pruning,
    ),
    _m(
        "quantization missing alone",
        "No candidate quantizes and does nothing else.",
        comparison.missing,
        change=_without("int8"),
    ),
    _m(
        "shrinking missing alone",
        "No candidate removes neurons and does nothing else.",
        comparison.missing,
        change=_without("shrink"),
    ),
    _m(
        "teacher missing",
        "No candidate is taught by the original network.",
        comparison.missing,
        change=_without("distill", "small-dense"),
    ),
    _m(
        "combination missing",
        "Each technique stands alone: nothing shows what two of them do together.",
        comparison.combined,
        change=_without("prune+int8"),
    ),
    _m(
        "archive missing",
        "What was pruned ships as ONNX only, where a zero takes as many bytes as any number.",
        comparison.pruned_ships,
        change=_with("prune", ship=("onnx",)),
    ),
    _m(
        "archive alone",
        "What was pruned ships as an archive only: what its zeros do to the ordinary file stays unseen.",
        comparison.pruned_ships,
        change=_with("prune", ship=("archive",)),
    ),
    _m(
        "quantized first",
        "You quantize before you train on: training moves the weights off their steps.",
        comparison.refused,
        change=_quantized_first,
    ),
    _m(
        "quantized before recovering",
        "You quantize before you recover: training moves the weights off their steps.",
        comparison.refused,
        change=_with("prune+int8", steps=(_PRUNED, _INT8, _RECOVER)),
    ),
    _m(
        "quantized, then pruned",
        "You prune after quantizing: the steps were laid for weights that are gone.",
        comparison.refused,
        change=_with("prune+int8", steps=(_INT8, _PRUNED)),
    ),
    _m(
        "no controls",
        "There are no controls: who says that it was the magnitudes, or the teacher?",
        comparison.random_control,
        comparison.small_control,
        comparison.claims,
        change=_without("prune-random", "small-dense"),
    ),
    _m(
        "no random control",
        "Nothing shows what as many zeros at any other places would have done.",
        comparison.random_control,
        change=_without("prune-random"),
    ),
    _m(
        "no control of the teacher",
        "Nothing shows what the small network would have learned without the teacher.",
        comparison.small_control,
        change=_without("small-dense"),
    ),
    _m(
        "controls not called so",
        "Your controls do not have the role of controls, so they count among the candidates.",
        comparison.random_control,
        comparison.small_control,
        comparison.claims,
        change=lambda rows: [rows[name].update(role="candidate") for name in ("prune-random", "small-dense")],
    ),
    _m(
        "controls of nothing",
        "Your controls do not tell whose controls they are.",
        comparison.random_control,
        comparison.small_control,
        comparison.claims,
        change=lambda rows: [rows[name].update(control_of=None) for name in ("prune-random", "small-dense")],
    ),
    _m(
        "controls swapped",
        "Your controls are each other's: one control names the candidate of the other.",
        comparison.random_control,
        comparison.small_control,
        comparison.claims,
        change=_controls_swapped,
    ),
    _m(
        "control of a stranger",
        "A control names a recipe that is not among the candidates.",
        comparison.strays,
        change=_with("prune-random", control_of="pruning"),
    ),
    _m(
        "control of the baseline",
        "Your controls are controls of the baseline, which makes no claim.",
        comparison.random_control,
        comparison.small_control,
        comparison.claims,
        change=lambda rows: [
            rows[name].update(control_of="fp32") for name in ("prune-random", "small-dense")
        ],
    ),
    _m(
        "control prunes by magnitude",
        "The control of pruning prunes by magnitude too: it is the candidate once more.",
        comparison.random_control,
        change=_with("prune-random", steps=(_PRUNED, _RECOVER)),
    ),
    _m(
        "control with other zeros",
        "The control of pruning makes another number of zeros: it cannot tell places from numbers.",
        comparison.random_control,
        change=_with("prune-random", steps=({**_RANDOM, "sparsity": 0.5}, _RECOVER)),
    ),
    _m(
        "control not recovered",
        "The control of pruning is trained less than the candidate: training alone would explain the difference.",
        comparison.random_control,
        change=_with("prune-random", steps=(_RANDOM,)),
    ),
    _m(
        "control is another technique",
        "The control of pruning does something else than pruning.",
        comparison.random_control,
        change=_with("prune-random", steps=(_SMALL, _RECOVER)),
    ),
    _m(
        "control taught as well",
        "The control of the taught network has the teacher too.",
        comparison.small_control,
        change=_with("small-dense", steps=(_SMALL, _DISTILL)),
    ),
    _m(
        "control shrunk, not begun anew",
        "The control of the taught network is cut out of the original and has its weights. Without a teacher means "
        "without what the teacher knows.",
        comparison.small_control,
        change=_with("small-dense", steps=(_SHRINK, _RECOVER)),
    ),
    _m(
        "control of another size",
        "The control of the taught network has another size.",
        comparison.small_control,
        change=_with("small-dense", steps=({**_SMALL, "ratio": 0.25}, _RECOVER)),
    ),
    _m(
        "control as large as the original",
        "The control of the taught network is the whole network, trained on.",
        comparison.small_control,
        change=_with("small-dense", steps=(_RECOVER,)),
    ),
)
