"""``remove_layers``: a shallower network of the same class, without the layers that matter least.

Measured effect, one layer at a time and measured again after each: Men et al., "ShortGPT" (2024), and Kim et al.,
"Shortened LLaMA" (2024), which compare such measures. Every second layer: Sanh et al., "DistilBERT" (2019), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tinypress.arguments import is_number, is_whole
from tinypress.errors import InputError, ModelError
from tinypress.facts import Change, Compressed, Note
from tinypress.graph import check_example, trace
from tinypress.layers import copy_model
from tinypress.shrink.asked import check_evidence, check_model, check_progress
from tinypress.shrink.branches import Branch, residual_branches
from tinypress.shrink.effect import Distance, Effect, change_of, loss_of
from tinypress.shrink.keep import held_by
from tinypress.shrink.leave import Leaver, failure_without, holder_of, leavers, paths_of, taken_out
from tinypress.shrink.residual import Residual, residual_layers
from tinypress.train.progress import Progress, silent

By = Literal["effect", "alternate"]


@dataclass(frozen=True)
class _Goal:
    """What was asked for, checked."""

    call: str
    count: int | None
    ratio: float | None
    least: float | None
    example: tuple[Tensor, ...]


def remove_layers(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    count: int | None = None,
    ratio: float | None = None,
    least: float | None = None,
    by: By = "effect",
    measure: Callable[[nn.Module], float] | None = None,
    calibration: tuple[Tensor, ...] | None = None,
    distance: Distance = "l2",
    keep: Sequence[str] = (),
    progress: Progress = silent,
) -> Compressed:
    """Remove residual blocks and transformer layers whole: those of the form x + f(x), found in any network.

    A list of layers becomes shorter, with what counts them in a Hugging Face config; elsewhere ``nn.Identity`` stands
    in the layer's place. A network without such layers may add in its own ``forward``: there the layers of f become
    ``nn.Identity``, the last of them 0. The result is of the same class, can be trained, exported, kept and pruned
    again, and has been run: it returns what the network returns when the removed layers add nothing. ``changes`` name
    the layers that went by their paths in ``model``, ``notes`` what each cost and what had to stay.

    Args:
        model: the network; not changed.
        example_inputs: one tensor [B, ...] per argument of ``forward``.
        count: how many layers to remove. Give this, ``ratio`` or ``least``; with ``alternate`` none is half of them.
        ratio: fraction of the layers that can leave, 0 < ratio < 1.
        least: remove layers as long as ``measure`` is at least this.
        by: ``effect`` removes the layer that costs least, then measures the others again, n^2 / 2 runs in all for
            n layers; ``alternate`` keeps layers evenly spaced from the first to the last of each list.
        measure: the quality of a network, the higher the better; what ``effect`` means. Without it, it is how much
            the outputs on ``calibration`` differ from those of ``model``.
        calibration: samples, one tensor [N, ...] per argument of ``forward``; else the example.
        distance: ``l2`` or, for a network whose first output is logits, ``kl``; see ``effect.Distance``.
        keep: paths of layers, or of modules with all that is in them, that stay.
        progress: told after each layer that was measured.

    Raises:
        InputError: a setting out of range, or settings that do not go together.
        ModelError: the network does not run, no layer can leave, or fewer than asked for.
    """
    call = (
        f"remove_layers({type(model).__name__}, count={count!r}, ratio={ratio!r}, least={least!r}, by={by!r})"
    )
    _check(call, count, ratio, least, by, measure, distance)
    check_model(call, model, keep)
    check_evidence(call, calibration, (), None)
    check_progress(call, progress)
    whole = copy_model(model)
    check_example(call, whole, example_inputs)
    layers, found, notes = _found(call, whole, example_inputs, keep)
    goal = _Goal(call, count, ratio, least, tuple(example_inputs))
    if by == "alternate":
        gone, said = _alternate(goal, whole, layers, found)
    else:
        samples = goal.example if calibration is None else tuple(calibration)
        effect = (
            loss_of(call, measure)
            if measure is not None
            else change_of(call, whole, samples, distance, max(len(goal.example[0]), 1))
        )
        gone, said = _by_effect(goal, whole, found, effect, "quality" if measure else distance, progress)
    if len(gone) == len(found):
        text = (
            f"none of the {len(found)} layers that could leave is left: what stays is what stood around them"
        )
        said = [*said, Note("TP313", "warning", None, text)]
    changes = tuple(Change(path, "layers", 1, 0) for each in gone for path in each.paths)
    return Compressed(taken_out(whole, gone), changes, (*notes, *said))


def _check(
    call: str, count: object, ratio: object, least: object, by: str, measure: object, distance: str
) -> None:
    for value, allowed in ((by, ("effect", "alternate")), (distance, ("l2", "kl"))):
        if value not in allowed:
            raise InputError(call, f"{value!r} is none of {allowed}", "Choose one of them")
    given = [
        name for name, value in (("count", count), ("ratio", ratio), ("least", least)) if value is not None
    ]
    if len(given) > 1 or (not given and by == "effect"):
        raise InputError(call, "it needs one of count, ratio and least", "Give count=2, for example")
    if count is not None and (not is_whole(count) or count < 1):
        raise InputError(call, f"count is {count!r}", "Give a whole number from 1")
    if ratio is not None and (not is_number(ratio) or not 0 < ratio < 1):
        raise InputError(
            call, f"ratio is {ratio!r}, not a fraction with 0 < ratio < 1", "Give 0.5, for example"
        )
    if least is not None and (not is_number(least) or not -1e300 < least < 1e300):
        raise InputError(call, f"least is {least!r}", "Give the lowest quality as a number")
    if measure is not None and not callable(measure):
        raise InputError(call, f"measure is a {type(measure).__name__}", "Give a function of the network")
    if by == "alternate" and (measure is not None or least is not None):
        raise InputError(
            call, "'alternate' measures nothing", "Leave measure and least out, or choose 'effect'"
        )

    if least is not None and measure is None:
        raise InputError(call, "least is a quality, and there is no measure", "Give measure, or count")


def _found(
    call: str, model: nn.Module, example: tuple[Tensor, ...], keep: Sequence[str]
) -> tuple[list[Residual | Branch], list[Leaver], list[Note]]:
    """All residual layers, those of them that can leave, and a note for each that cannot or is kept."""
    layers: list[Residual | Branch] = [*residual_layers(model, example)]
    if not layers:  # then it may add in its own forward()
        layers += residual_branches(trace(model, example), model)
    notes: list[Note] = []
    free = []
    for layer in layers:
        held = held_by(paths_of(layer), keep)
        if held is None:
            free.append(layer)
        else:
            path = paths_of(layer)[0]
            notes.append(Note("TP310", "note", path, f"{path} stays as asked (keep={held!r})"))
    found, failures = leavers(model, free, example)
    notes += [_stays(path, failure) for path, failure in failures.items()]
    if not found:
        reasons = "; ".join(each.text for each in notes) or "none adds to its input what it computes from it"
        raise ModelError(
            call, f"no layer can leave ({reasons})", "Remove neurons of it instead: prune_structured"
        )
    return layers, list(found), notes


def _stays(name: str, failure: str) -> Note:
    text = f"{name} stays: without it the network is not what it is when the layer adds nothing ({failure})"
    return Note("TP311", "warning", name.split(" ")[0], text)


def _due(goal: _Goal, found: Sequence[Leaver]) -> int:
    if goal.count is not None:
        due = goal.count
    elif goal.ratio is not None:
        due = max(round(goal.ratio * len(found)), 1)
    else:
        due = len(found)
    if goal.count is not None and due > len(found):
        raise ModelError(
            goal.call,
            f"only {len(found)} layers can leave ({', '.join(each.name for each in found)})",
            f"Give a count up to {len(found)}",
        )
    return due


def _by_effect(
    goal: _Goal,
    model: nn.Module,
    found: Sequence[Leaver],
    effect: Effect,
    unit: str,
    progress: Progress,
) -> tuple[list[Leaver], list[Note]]:
    """Greedy: of the layers left the one that costs least, the earlier among equals."""
    due = _due(goal, found)
    gone: list[Leaver] = []
    notes: list[Note] = []
    left = list(found)
    done, total = 0, sum(range(len(found) - due + 1, len(found) + 1))  # where none of the best has to stay
    while len(gone) < due and left:
        costs = []
        for each in left:
            costs.append(effect(taken_out(model, [*gone, each])))
            done += 1
            progress("measuring layers", done, max(done, total))
        best, cost = left.pop(min(range(len(costs)), key=costs.__getitem__)), min(costs)
        told = (
            f"the quality is {-cost:.6g}"
            if unit == "quality"
            else f"the output is off by {cost:.3g} ({unit})"
        )
        if goal.least is not None and -cost < goal.least:
            text = f"{best.name} stays: without it {told}, less than {goal.least:.6g}"
            notes.append(Note("TP310", "note", best.paths[0], text))
            break
        failure = failure_without(model, [*gone, best], goal.example)
        if failure is not None:
            notes.append(_stays(best.name, failure))
            continue
        gone.append(best)
        text = f"{best.name} left as number {len(gone)}: {told}"
        notes.append(Note("TP312", "note", best.paths[0], text))
    return gone, notes


def _alternate(
    goal: _Goal, model: nn.Module, layers: Sequence[Residual | Branch], found: Sequence[Leaver]
) -> tuple[list[Leaver], list[Note]]:
    free = {each.paths: each for each in found}
    series: dict[str, list[Leaver | None]] = {}
    for layer in layers:
        series.setdefault(holder_of(layer), []).append(free.get(paths_of(layer)))
    sizes = [sum(each is not None for each in own) for own in series.values()]
    if goal.count is None and goal.ratio is None:
        shares = [min(len(own) // 2, size) for own, size in zip(series.values(), sizes, strict=True)]
    else:
        shares = _shared(_due(goal, found), sizes)
    gone: list[Leaver] = []
    notes: list[Note] = []
    for (holder, own), share in zip(series.items(), shares, strict=True):
        if not share:
            text = f"{holder or 'the network'} keeps its layers: too few can leave ({len(own)} in all)"
            notes.append(Note("TP310", "note", holder, text))
        for each in _between(own, share):
            failure = failure_without(model, [*gone, each], goal.example)
            if failure is None:
                gone.append(each)
            else:
                notes.append(_stays(each.name, failure))
    return gone, notes


def _between(own: Sequence[Leaver | None], share: int) -> list[Leaver]:
    """``share`` of a list's layers, those between evenly spaced ones first, and then the last ones."""
    stay = spaced(len(own), len(own) - share)
    order = sorted(range(len(own)), key=lambda place: (place in stay, place not in stay or -place))
    chosen = [place for place in order if own[place] is not None][:share]
    return [each for place in sorted(chosen) if (each := own[place]) is not None]


def _shared(due: int, sizes: Sequence[int]) -> list[int]:
    """``due`` shared out in proportion to ``sizes``: whole parts first, then the largest remainders."""
    total = sum(sizes)
    shares = [due * size // total for size in sizes]
    order = sorted(range(len(sizes)), key=lambda place: (-(due * sizes[place] % total), place))
    for place in order[: due - sum(shares)]:
        shares[place] += 1
    return shares


def spaced(count: int, stay: int) -> tuple[int, ...]:
    """``stay`` of ``count`` places, evenly spaced with the first and the last; 6 of 12 are 0, 2, 4, 7, 9, 11."""
    if stay < 2:
        return (0,) * stay
    return tuple((2 * place * (count - 1) + stay - 1) // (2 * (stay - 1)) for place in range(stay))
