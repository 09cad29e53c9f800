"""Mistakes that people make when they design a pipeline for a byte budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from tinypress_course.checks.base import Answer, Case
from tinypress_course.checks.pipeline import ratio_of, sparsity_of
from tinypress_course.checks.recipes import TEACHING, filled, kinds
from tinypress_course.kit import Recipe
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.models import Plain

_RECOVER: Plain = {"technique": "recover"}
_DISTILL: Plain = {"technique": "distill"}
_INT8: Plain = {"technique": "quantize", "bits": 8}
Steps = list[Plain]


def _zeros_for(room: float) -> float:
    return 1 - (32 * room - 1) / 8


def _ratio_for(room: float, smallest: float) -> float:
    return 1 - math.sqrt(room / smallest)


def _design(
    budget_bytes: float,
    float_bytes: float,
    *,
    room: Callable[[float, float], float] = lambda budget, whole: 0.85 * budget / whole,
    int8_share: float = 8 / 32,
    smallest: float = (1 + 8 * 0.1) / 32,
    zeros_for: Callable[[float], float] = _zeros_for,
    ratio_for: Callable[[float, float], float] = _ratio_for,
    float_fits: Callable[[float], bool] = lambda room: room >= 1,
    only_8_bits: bool = True,
    most: float = 0.9,
    zeros_below: float = 0.0,
    small: Callable[[float], Steps] = lambda ratio: [{"technique": "shrink", "ratio": ratio}, _DISTILL],
    zeros: Callable[[float], Steps] = lambda sparsity: [
        {"technique": "magnitude", "sparsity": sparsity},
        _RECOVER,
    ],
    last: Steps | None = None,
    order: Callable[[Steps], Steps] = lambda steps: steps,
    ship: tuple[str, ...] = ("archive",),
    unchecked: bool = False,
) -> Recipe:
    """The design with places for mistakes; with none of them it agrees with the statement."""
    if not unchecked and (budget_bytes <= 0 or float_bytes <= 0):
        raise ValueError("not positive")
    left = room(budget_bytes, float_bytes)
    if float_fits(left):
        return Recipe(name="pipeline")
    if left >= int8_share and only_8_bits:
        return Recipe(name="pipeline", steps=(_INT8,))
    steps: Steps = []
    sparsity = zeros_for(left)
    if left < smallest:
        steps, sparsity = small(ratio_for(left, smallest)), most
    elif zeros_below and left > zeros_below:
        steps, sparsity = small(1 - math.sqrt(left / int8_share)), 0.0
    made = [*steps, *(zeros(sparsity) if sparsity else []), *([_INT8] if last is None else last)]
    return Recipe(name="pipeline", steps=tuple(order(made)), ship=ship)  # type: ignore[arg-type]


def _always(recipe: Recipe, budget_bytes: float, float_bytes: float) -> Recipe:
    if budget_bytes <= 0 or float_bytes <= 0:
        raise ValueError("not positive")
    return recipe


def _unchecked(budget_bytes: float, float_bytes: float) -> Recipe:
    if budget_bytes > 0 and float_bytes > 0:
        return _design(budget_bytes, float_bytes)
    return Recipe(name="pipeline")


def _plan(case: Case, answer: Answer) -> Plain:
    """The steps, how hard they press in hundredths, and the files: which step teaches makes no difference."""
    recipes = [filled(each) for each in (answer["recipes"] if "recipes" in answer else [answer["recipe"]])]
    return [
        [_taught(each), round(100 * sparsity_of(each)), round(100 * ratio_of(each)), sorted(each["ship"])]
        for each in recipes
    ]


def _order(case: Case, answer: Answer) -> Plain:
    """The steps and the files alone."""
    recipes = [filled(each) for each in (answer["recipes"] if "recipes" in answer else [answer["recipe"]])]
    return [[_taught(each), sorted(each["ship"])] for each in recipes]


def _taught(recipe: Plain) -> list[str]:
    return ["teach" if kind in TEACHING else kind for kind in kinds(recipe)]


def _m(name: str, says: str, reads: Callable[[Case, Answer], Plain] = _plan, **mistake: Any) -> Misconception:
    return Misconception(
        "design_pipeline", name, says, partial(_design, **mistake), reads=reads, right=_design
    )


def _by_recovering(steps: Steps) -> Steps:
    """``steps`` with quantization before the last step that teaches."""
    return [*steps[:-2], steps[-1], steps[-2]]


def _first(steps: Steps) -> Steps:
    return [steps[-1], *steps[:-1]]


MISCONCEPTIONS: tuple[Misconception, ...] = (
    _m(
        "margin ignored",
        "You spend the whole budget on weights: names, biases and headers take bytes too.",
        room=lambda budget, whole: budget / whole,
    ),
    _m(
        "places of kept weights alone",
        "You count the bit for its place only for weights that are kept. Every place needs it, kept or not.",
        zeros_for=lambda room: 1 - 32 * room / 9,
        smallest=9 * 0.1 / 32,
    ),
    _m(
        "margin added",
        "You add the margin to the budget instead of leaving it free.",
        room=lambda budget, whole: 1.15 * budget / whole,
    ),
    _m(
        "margin on the wrong side",
        "You add 15 % to the file; 15 % of the budget were to be left free, which is more.",
        room=lambda budget, whole: budget / (1.15 * whole),
    ),
    _m(
        "margin alone",
        "You leave 85 % of the budget free and spend 15 %.",
        room=lambda budget, whole: 0.15 * budget / whole,
    ),
    _m(
        "share upside down",
        "You divide the float bytes by the budget: a small budget then looks roomy.",
        room=lambda budget, whole: 0.85 * whole / budget,
    ),
    _m(
        "eight bits as an eighth",
        "You take 8 bits for an eighth of a float's bytes.",
        int8_share=1 / 8,
    ),
    _m("half a float", "You take 8 bits for half of a float's bytes.", int8_share=0.5),
    _m("bytes for bits", "You take 8 bits for 8 bytes: they never seem to fit.", int8_share=2.0),
    _m(
        "places forgotten",
        "You forget the bit that every place takes in the archive, whether its weight is kept or not.",
        zeros_for=lambda room: 1 - 4 * room,
    ),
    _m(
        "places forgotten",
        "You forget the bit that every place takes in the archive, whether its weight is kept or not.",
        zeros_for=lambda room: 1 - 4 * room,
        smallest=8 * 0.1 / 32,
    ),
    _m(
        "a byte for every place",
        "You reckon a byte for every place; the archive takes a bit.",
        zeros_for=lambda room: min(0.9, max(0.0, 1 - (32 * room - 8) / 8)),
    ),
    _m(
        "32 bits a kept weight",
        "You reckon 32 bits for every weight that is kept, and they have been quantized.",
        zeros_for=lambda room: min(0.9, 1 - (32 * room - 1) / 32),
    ),
    _m(
        "kept for pruned",
        "Your sparsity is the share of weights that are kept.",
        zeros_for=lambda room: (32 * room - 1) / 8,
    ),
    _m(
        "percent",
        "Your sparsity is in percent; a fraction from 0 to 1 was promised.",
        zeros_for=lambda room: 100 * _zeros_for(room),
    ),
    _m(
        "rounded to whole tenths",
        "You round the sparsity to tenths: rounded down, the file does not fit, rounded up, it is pressed too hard.",
        zeros_for=lambda room: round(_zeros_for(room), 1),
    ),
    _m(
        "a little less",
        "You round the sparsity down: the file is then a little too large.",
        zeros_for=lambda room: math.floor(10 * _zeros_for(room)) / 10,
    ),
    _m(
        "always the most zeros",
        "You make as many zeros as allowed, also where fewer are enough.",
        zeros_for=lambda room: 0.9,
    ),
    _m(
        "always 80 percent",
        "Your sparsity is the same for every budget.",
        zeros_for=lambda room: 0.8,
    ),
    _m(
        "always half",
        "Your sparsity is the same for every budget.",
        zeros_for=lambda room: 0.5,
    ),
    _m(
        "more zeros than allowed",
        "You never remove neurons: your sparsity goes above 0.9, where little is left that works.",
        smallest=0.0,
        zeros_for=lambda room: min(1.0, _zeros_for(room)),
    ),
    _m(
        "zeros end at 0.9",
        "You stop at 0.9 zeros, and below that the file does not fit: nothing else is pressed.",
        small=lambda ratio: [],
    ),
    _m(
        "neurons before zeros",
        "You remove neurons where zeros are enough.",
        _order,
        zeros_below=0.06,
    ),
    _m(
        "neurons counted once",
        "You reckon that half of the neurons take half of the bytes: each weight has a neuron on both of its sides.",
        ratio_for=lambda room, smallest: 1 - room / smallest,
    ),
    _m(
        "neurons left for neurons gone",
        "Your ratio is the share of neurons that stay.",
        ratio_for=lambda room, smallest: math.sqrt(room / smallest),
    ),
    _m(
        "root missing, share left",
        "Your ratio is the share of bytes that stay.",
        ratio_for=lambda room, smallest: room / smallest,
    ),
    _m(
        "always half of the neurons",
        "Your ratio is the same for every budget.",
        ratio_for=lambda room, smallest: 0.5,
    ),
    _m(
        "ratio for the whole file",
        "Your ratio reckons as if neurons had to save everything; zeros and 8 bits have saved most of it.",
        ratio_for=lambda room, smallest: 1 - math.sqrt(room),
    ),
    _m(
        "float never enough",
        "You quantize also where the float file fits.",
        _order,
        float_fits=lambda room: False,
    ),
    _m(
        "float fits always",
        "You do nothing where the file is a little larger than the budget.",
        _order,
        float_fits=lambda room: room >= 0.5,
    ),
    _m(
        "8 bits never alone",
        "You make zeros also where 8 bits alone are enough.",
        _order,
        only_8_bits=False,
        zeros_for=lambda room: max(0.1, min(0.9, _zeros_for(room))),
    ),
    _m(
        "nothing taught",
        "No step teaches: what pressing broke stays broken.",
        _order,
        small=lambda ratio: [{"technique": "shrink", "ratio": ratio}],
        zeros=lambda sparsity: [{"technique": "magnitude", "sparsity": sparsity}],
    ),
    _m(
        "taught once",
        "Only the last of the steps that hurt is followed by one that teaches.",
        _order,
        small=lambda ratio: [{"technique": "shrink", "ratio": ratio}],
    ),
    _m(
        "zeros not recovered",
        "Nothing teaches after the zeros.",
        _order,
        zeros=lambda sparsity: [{"technique": "magnitude", "sparsity": sparsity}],
    ),
    _m(
        "quantized before recovering",
        "You quantize before you recover: training moves the weights off their steps.",
        _order,
        order=_by_recovering,
    ),
    _m(
        "quantized first",
        "You quantize first: every step after that moves the weights off their steps.",
        _order,
        order=_first,
    ),
    _m(
        "taught at the very end",
        "You train after quantizing: that moves the weights off their steps.",
        _order,
        last=[_INT8, _RECOVER],
    ),
    _m(
        "not quantized",
        "Your zeros are not quantized: each kept weight still takes 32 bits.",
        _order,
        last=[],
    ),
    _m(
        "zeros shipped as ONNX",
        "You ship zeros as ONNX, where a zero takes as many bytes as any number.",
        _order,
        ship=("onnx",),
    ),
    _m(
        "both files shipped",
        "You ship both files, and one of them does not fit: zeros save nothing in ONNX.",
        _order,
        ship=("onnx", "archive"),
    ),
    _m(
        "fewer bits",
        "You use fewer bits than the 8 for which the statement gives sizes.",
        lambda case, answer: (
            kinds(answer["recipe"])[-1:] == ["quantize"] and answer["recipe"]["steps"][-1].get("bits", 8) < 8
        ),
        last=[{"technique": "quantize", "bits": 4}],
    ),
    Misconception(
        "design_pipeline",
        "always nothing",
        "Your recipe has no steps, whatever the budget is.",
        partial(_always, Recipe(name="pipeline")),
        reads=_order,
    ),
    Misconception(
        "design_pipeline",
        "always 8 bits",
        "Your recipe is 8 bits alone, whatever the budget is.",
        partial(_always, Recipe(name="pipeline", steps=(_INT8,))),
        reads=_order,
    ),
    _m(
        "any number accepted",
        "You take a budget or a size that is not positive.",
        _order,
        unchecked=True,
    ),
    Misconception(
        "design_pipeline",
        "any number accepted",
        "You take a budget or a size that is not positive.",
        _unchecked,
        reads=lambda case, answer: case.inputs["budget_bytes"] <= 0 or case.inputs["float_bytes"] <= 0,
    ),
)
