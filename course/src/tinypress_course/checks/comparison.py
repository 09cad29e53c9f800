"""What an honest comparison promises: one press, each technique alone, and a control beside each claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import seen
from tinypress_course.checks.once import once
from tinypress_course.checks.recipes import (
    SMALLER,
    TEACHING,
    filled,
    first,
    impossible,
    kinds,
    pressing,
    pressing_kinds,
    words,
)
from tinypress_course.models import Plain

COMPARE = "compare_compression_techniques"
PASSED = ("task", "out", "engine", "seed")
Finding = Callable[[Case, Answer], Plain]


def _case(task: str, out: str, engine: str | None, seed: int) -> Case:
    inputs = {"task": task, "out": out, "engine": engine, "seed": seed}
    return Case(inputs, f"{COMPARE}({task!r}, {out!r}, engine={engine!r}, seed={seed})")


@once
def _asked(draw: Draw) -> Iterator[Case]:
    yield _case("the watch", "runs/comparison", None, 0)
    yield _case("another task", "runs/other", "my engine", 3)


@once
def _asked_hidden(draw: Draw) -> Iterator[Case]:
    number = draw.choice.randrange(4, 1000)
    yield _case(f"task {number}", f"runs/{number}", f"engine {number}", number)


def recipes_of(answer: Answer) -> list[Plain]:
    """All recipes that press got."""
    return [filled(recipe) for asked in answer["asked"] for recipe in asked["recipes"]]


def calls(case: Case, answer: Answer) -> int:
    """How often press was called."""
    return len(answer["asked"])


def lost(case: Case, answer: Answer) -> list[str]:
    """What of the arguments did not reach press."""
    asked = answer["asked"]
    return [name for name in PASSED if any(each[name] != case.inputs[name] for each in asked)]


def came_back(case: Case, answer: Answer) -> Plain:
    """What was returned."""
    return answer["answer"]


def baseline(case: Case, answer: Answer) -> str:
    """How the baseline stands among the recipes."""
    recipes = recipes_of(answer)
    found = [recipe for recipe in recipes if recipe["role"] == "baseline"]
    if len(found) != 1:
        return "missing" if not found else "there more than once"
    if found[0]["steps"]:
        return "not as it was: it has steps"
    return "first" if recipes[0] is found[0] else "not the first recipe"


def doubled(case: Case, answer: Answer) -> bool:
    """Whether two recipes have one name."""
    names = [recipe["name"] for recipe in recipes_of(answer)]
    return len(set(names)) < len(names)


def refused(case: Case, answer: Answer) -> list[Plain]:
    """The recipes that press would refuse, by their steps."""
    return [kinds(recipe) for recipe in recipes_of(answer) if impossible(recipe)]


def _candidates(answer: Answer) -> list[Plain]:
    return [recipe for recipe in recipes_of(answer) if recipe["role"] == "candidate"]


def _alone(answer: Answer) -> dict[str, list[Plain]]:
    """The candidates that show one technique alone."""
    found: dict[str, list[Plain]] = {"pruning": [], "quantization": [], "shrinking": [], "teaching": []}
    for recipe in _candidates(answer):
        pressed = pressing_kinds(recipe)
        if pressed == ["magnitude"] and first(recipe, "magnitude").get("score") != "random":
            found["pruning"].append(recipe)
        if pressed == ["quantize"]:
            found["quantization"].append(recipe)
        if pressed == ["shrink"] and first(recipe, "shrink").get("importance") != "random":
            found["shrinking"].append(recipe)
        if pressed in (["student"], ["shrink"]) and "distill" in kinds(recipe):
            found["teaching"].append(recipe)
    return found


def missing(case: Case, answer: Answer) -> list[str]:
    """The techniques that no candidate shows alone."""
    alone = _alone(answer)
    gone = [name for name, recipes in alone.items() if not recipes]
    if not gone and len(alone["shrinking"]) == 1 and alone["shrinking"] == alone["teaching"]:
        gone = ["shrinking"]
    return gone


def pruned_ships(case: Case, answer: Answer) -> list[list[str]]:
    """In which files what was pruned alone is shipped."""
    return [sorted(recipe["ship"]) for recipe in _alone(answer)["pruning"]]


def combined(case: Case, answer: Answer) -> bool:
    """Whether a candidate prunes and quantizes."""
    return any({"magnitude", "quantize"} <= set(kinds(recipe)) for recipe in _candidates(answer))


def strays(case: Case, answer: Answer) -> int:
    """How many recipes claim to be the control of what is no candidate, or are one without being called so."""
    named = {recipe["name"] for recipe in recipes_of(answer) if recipe["role"] != "control"}
    claims = [recipe for recipe in recipes_of(answer) if recipe["control_of"] is not None]
    return sum(recipe["control_of"] not in named or recipe["role"] != "control" for recipe in claims)


def claims(case: Case, answer: Answer) -> list[bool]:
    """Whether recipes have the role of controls, whether some say whose, and whether that is the baseline."""
    recipes = recipes_of(answer)
    base = {recipe["name"] for recipe in recipes if recipe["role"] == "baseline"}
    said = {recipe["control_of"] for recipe in recipes} - {None}
    return [any(recipe["role"] == "control" for recipe in recipes), bool(said), bool(said & base)]


def _controls(answer: Answer, technique: str) -> list[tuple[Plain, Plain]]:
    """Candidates with ``technique``, each with one of its controls."""
    recipes = recipes_of(answer)
    chosen = [recipe for recipe in _candidates(answer) if technique in kinds(recipe)]
    return [
        (recipe, control)
        for recipe in chosen
        for control in recipes
        if control["role"] == "control" and control["control_of"] == recipe["name"]
    ]


def random_control(case: Case, answer: Answer) -> str:
    """How fair the fairest control of a pruned candidate is."""
    found = {_at_random(*pair) for pair in _controls(answer, "magnitude")}
    order = (
        "fair",
        "with other training",
        "with another number of zeros",
        "not at random",
        "of another kind",
    )
    return next((word for word in order if word in found), "missing")


def _at_random(recipe: Plain, control: Plain) -> str:
    if pressing_kinds(recipe) != pressing_kinds(control):
        return "of another kind"
    ours, theirs = first(recipe, "magnitude"), first(control, "magnitude")
    if theirs.get("score") != "random":
        return "not at random"
    if abs(ours["sparsity"] - theirs["sparsity"]) > 1e-9:
        return "with another number of zeros"
    trained = [[kind in TEACHING for kind in kinds(each)] for each in (recipe, control)]
    return "fair" if trained[0] == trained[1] else "with other training"


def small_control(case: Case, answer: Answer) -> str:
    """How fair the fairest control of a taught candidate is."""
    found = {_untaught(*pair) for pair in _controls(answer, "distill")}
    order = (
        "fair",
        "never trained",
        "of another size",
        "of another start",
        "taught as well",
        "of another kind",
    )
    return next((word for word in order if word in found), "missing")


def _untaught(recipe: Plain, control: Plain) -> str:
    ours, theirs = first(recipe, *SMALLER), first(control, *SMALLER)
    if len(pressing(recipe)) != len(pressing(control)) or ours is None or theirs is None:
        return "of another kind"
    if "distill" in kinds(control):
        return "taught as well"
    if ours["technique"] == "student" != theirs["technique"]:
        return "of another start"  # weights cut out of the original know what it knows
    if abs(ours["ratio"] - theirs["ratio"]) > 1e-9:
        return "of another size"
    return "fair" if "recover" in kinds(control) else "never trained"


def _pressed_once(case: Case, answer: Answer) -> str | None:
    if calls(case, answer) != 1:
        return f"press was called {calls(case, answer)} times"
    gone = lost(case, answer)
    return f"press did not get the {words(gone)} that came in" if gone else None


def _receipt(case: Case, answer: Answer) -> str | None:
    return None if came_back(case, answer) == "the receipt" else "what press gave back was not returned"


def _baseline(case: Case, answer: Answer) -> str | None:
    word = baseline(case, answer)
    return None if word == "first" else f"the baseline is {word}"


def _names(case: Case, answer: Answer) -> str | None:
    return "two recipes have one name" if doubled(case, answer) else None


def _possible(case: Case, answer: Answer) -> str | None:
    if not recipes_of(answer):
        return "press got no recipes"
    return next(filter(None, map(impossible, recipes_of(answer))), None)


def _each_alone(case: Case, answer: Answer) -> str | None:
    gone = missing(case, answer)
    return f"no candidate shows {gone[0]} alone" if gone else None


def _archived(case: Case, answer: Answer) -> str | None:
    if any({"onnx", "archive"} <= set(ship) for ship in pruned_ships(case, answer)):
        return None
    return "what was pruned alone is not shipped in both kinds of file"


def _combined(case: Case, answer: Answer) -> str | None:
    return None if combined(case, answer) else "no candidate combines pruning and quantization"


def _named(case: Case, answer: Answer) -> str | None:
    return "a recipe is the control of what is no candidate" if strays(case, answer) else None


def _random(case: Case, answer: Answer) -> str | None:
    word = random_control(case, answer)
    return None if word == "fair" else f"the control of what was pruned is {word}"


def _small(case: Case, answer: Answer) -> str | None:
    word = small_control(case, answer)
    return None if word == "fair" else f"the control of what was taught is {word}"


CHECKS = (
    Check(COMPARE, "calls press once, with what came in", _asked, seen(_pressed_once)),
    Check(COMPARE, "does so for others", _asked_hidden, seen(_pressed_once), hidden=True),
    Check(COMPARE, "gives back the receipt", _asked, seen(_receipt)),
    Check(COMPARE, "begins with the baseline as it is", _asked, seen(_baseline)),
    Check(COMPARE, "gives each recipe its own name", _asked, seen(_names)),
    Check(COMPARE, "asks only for what press can carry out", _asked, seen(_possible)),
    Check(COMPARE, "shows each technique alone", _asked, seen(_each_alone)),
    Check(COMPARE, "ships pruned weights as an archive too", _asked, seen(_archived)),
    Check(COMPARE, "combines pruning and quantization", _asked, seen(_combined)),
    Check(COMPARE, "names the candidate of each control", _asked, seen(_named)),
    Check(COMPARE, "sets a fair control beside what was pruned", _asked, seen(_random)),
    Check(COMPARE, "sets a fair control beside what was taught", _asked, seen(_small)),
)
