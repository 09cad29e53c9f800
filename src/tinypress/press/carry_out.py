"""Carries out a recipe, step after step, with what belongs between steps and to none of them: batch norm's moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from tinypress.facts import Compressed, Note
from tinypress.files import canonical, sha256
from tinypress.press.bench import Bench
from tinypress.press.composition import Promise, batch_norm_is_stale, contract_of
from tinypress.press.recipe import Recipe
from tinypress.press.run_folder import RunFolder
from tinypress.press.step import Step
from tinypress.press.steps import apply_step
from tinypress.task import Split
from tinypress.train.batchnorm import reestimate_batch_norm

_SAMPLES = 1024  # enough for a mean and a variance of each channel


Work = Callable[[Compressed, Bench], Compressed]


def carry_out(
    folder: RunFolder, recipe: Recipe, bench: Bench, *, also: RunFolder | None = None
) -> tuple[Compressed, float]:
    """The recipe's network and the seconds its steps took; what recipes begin with alike is done once.

    ``also`` is another run of the same task and seed: what was finished there is not done again.
    Where batch norm's moments are those of a network before it was cut or pruned, they are estimated again, once:
    before integers are fixed, else at the end.
    """
    current, total = Compressed(bench.task.model), 0.0
    done: list[object] = []
    for what, work in _works(recipe, bench.task.model):
        done.append(what)
        key = sha256(canonical(done))[:16]
        kept = folder.load_step(key, bench.task.model)
        if kept is None and also is not None:
            kept = also.load_step(key, bench.task.model)
        if kept is None:
            start = time.perf_counter()
            after = work(current, replace(bench, checkpoint=folder.checkpoint(key)))
            kept = after, time.perf_counter() - start
            folder.save_step(key, *kept)
        current, seconds = kept
        total += seconds
    return current, total


def _works(recipe: Recipe, model: nn.Module) -> list[tuple[object, Work]]:
    """What is done one after the other, each with the plain data that tell it from other work."""
    steps, works = recipe.steps, list[tuple[object, Work]]()
    from_scratch = any(contract_of(step).restarts for step in steps)
    fixed = False
    for place, step in enumerate(steps):
        fixed = fixed or Promise.INTEGERS in contract_of(step).ensures
        if fixed and _needs_moments(steps[:place], model):
            works.append(("batch norm", with_moments))
        works.append((step.model_dump(mode="json"), _applying(step, from_scratch)))
    if not fixed and _needs_moments(steps, model):
        works.append(("batch norm", with_moments))
    return works


def _applying(step: Step, from_scratch: bool) -> Work:
    return lambda before, bench: apply_step(step, before, bench, from_scratch=from_scratch)


def _needs_moments(steps: Sequence[Step], model: nn.Module) -> bool:
    return batch_norm_is_stale(steps) and _keeps_moments(model)


def _keeps_moments(model: nn.Module) -> bool:
    norms = (layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
    return any(norm.running_mean is not None for norm in norms)


def with_moments(before: Compressed, bench: Bench) -> Compressed:
    """``before`` with batch norm's moments as they are now, and a note that says so.

    Estimated on samples of the train split, else of validation (whose labels are not looked at).
    """
    if not _keeps_moments(before.model):  # they left with the layers
        return before
    samples, name = _samples(bench)
    if len(samples) < 2:
        text = (
            "batch norm's moments are those of the network before it was pruned: one sample gives no new ones"
        )
        return replace(before, notes=(*before.notes, Note("TP406", "warning", None, text)))
    after = reestimate_batch_norm(before, samples)
    text = (
        f"batch norm's moments were estimated again on {len(samples):,} samples of {name}, since no training came "
        "after the last step that changed what they see"
    )
    return replace(after, notes=(*after.notes, Note("TP406", "note", None, text)))


def _samples(bench: Bench) -> tuple[Split, str]:
    train = bench.task.train
    split, name = (train, "train") if train is not None else (bench.task.validation, "validation")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(bench.seed))
    return split.take(order[:_SAMPLES]), name
