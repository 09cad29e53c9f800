"""What of the remedies that helped is needed: the cause goes by what is left, and so does the recipe."""

from __future__ import annotations

from collections.abc import Sequence

from tinypress.diagnosis import Trial
from tinypress.errors import TinypressError
from tinypress.plan.diagnose.case import Attempt, Case, attempt
from tinypress.plan.diagnose.evidence import Evidence, measures
from tinypress.plan.diagnose.remedies import Remedy, Steps


def only_needed(
    case: Case,
    found: Attempt,
    best: Attempt,
    trials: Sequence[Trial],
    remedies: Sequence[Remedy],
    evidence: Evidence,
    allowed: float,
) -> tuple[Attempt, tuple[Trial, ...]]:
    """``best`` without the remedies, the first kept first, without which the others stay within ``allowed``.

    What comes first in the menu is tried first, and may bring back much of what a later one brings back whole.
    """
    kept = [trial.remedy for trial in trials if trial.kept]
    told = {trial.remedy: trial for trial in trials}
    if case.loss(best.evaluation.value) > allowed:
        return best, tuple(trials)
    for done, name in enumerate(kept[:-1]):
        case.bench.progress("leaving out what is not needed", done, len(kept) - 1)
        rest = [each for each in kept if each != name and told[each].kept]
        try:
            tried = attempt(case, _with_all(rest, found.steps, remedies, evidence))
        except TinypressError:
            continue
        if case.loss(tried.evaluation.value) > allowed:
            continue
        best = tried
        told[name] = told[name].model_copy(update={"kept": False, "left_out": True})
        told[rest[-1]] = told[rest[-1]].model_copy(update=measures(case, tried))
    return best, tuple(told[trial.remedy] for trial in trials)


def _with_all(names: Sequence[str], steps: Steps, remedies: Sequence[Remedy], evidence: Evidence) -> Steps:
    for remedy in remedies:
        if remedy.name in names:
            steps = remedy.edit(steps, evidence) or steps
    return steps
