"""``search_architecture``: the widths, heads and layers that a task's network keeps under a budget."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError, TaskError
from tinypress.facts import Change, Compressed, Note
from tinypress.graph import forward_eval
from tinypress.layers import names_now, stock_name
from tinypress.measure.latency_table import LatencyTable, preferred_multiple
from tinypress.measure.network_latency import beside, open_network
from tinypress.measure.quality import compute, resolve_metric
from tinypress.prune import keep_zeros
from tinypress.receipt import Latency
from tinypress.search.goal import Goal, goal_of
from tinypress.search.kept import Rounds, nothing_kept
from tinypress.search.netadapt import Pace, Searched, State, adapt_architecture, fingerprint, named
from tinypress.search.proposals import Choices
from tinypress.shrink.asked import check_model
from tinypress.shrink.budget import Budget
from tinypress.shrink.importance import check_method
from tinypress.shrink.saliency import OF_ACTIVATIONS, OF_THE_LOSS, SALIENCIES, Saliency
from tinypress.task import Task
from tinypress.train.loop import Progress, fit, silent, supervised
from tinypress.train.recovery import task_schedule


def search_architecture(
    task: Task,
    budget: Budget,
    *,
    table: LatencyTable | None = None,
    step: float = 0.1,
    decay: float = 0.96,
    short_epochs: int = 1,
    epochs: int | None = None,
    depth: bool = True,
    importance: Saliency = "l2",
    multiple: int | None = None,
    min_width: int = 1,
    keep: Sequence[str] = (),
    pruned: Collection[str] = (),
    folder: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Searched:
    """Prune a network to a budget where it costs least quality: Yang et al., "NetAdapt" (2018), algorithm 1.

    In each round every group of neurons proposes the least cut that saves the round's share, and every layer that can
    leave proposes to leave; each is trained for ``short_epochs`` and evaluated on validation, and the best is kept.
    The result is trained for ``epochs``. Milliseconds are predicted from ``table`` and then measured in ONNX Runtime,
    beside the whole network; where the measurement is over the budget, the search goes on below it.

    Args:
        task: the network with its data; not changed. Without ``train`` and ``loss`` nothing is trained.
        budget: parameters, bytes, MACs or ``latency_ms``, a share of now below 1 for all but the last.
        table: what each layer takes on the machine that the budget is about; needed for ``latency_ms``.
        step: share of the first cost that the first round comes down by, above 0 and below 1.
        decay: each round's share of the one before, above 0 and at most 1.
        short_epochs: epochs that each proposal is trained for; 0 for none.
        epochs: of the result's training; as many as the task's recovery takes where it is None, 0 for none.
        depth: let residual blocks and transformer layers leave whole.
        importance: which units of a group leave first; one that needs no data, see ``saliency.score_units``.
        multiple: leave widths that it divides; None for what the table's kernels like, or 1.
        min_width: units that stay in every group.
        keep: paths of layers, or of modules with all that is in them, that keep their units and stay.
        pruned: parameters whose zeros stay zero in every training, as ``Compressed.pruned`` names them.
        folder: where each round is kept, so that the same call goes on after it was stopped.
        seed: of training; the same seed, table and threads give the same network.
        progress: told how far the search is.

    Raises:
        InputError: a setting out of range, or a latency without a table.
        ModelError: the network cannot be traced or exported, or the budget cannot be met.
        RunError: ``folder`` cannot be written.
    """
    call = f"search_architecture({getattr(task, 'name', task)!r}, {budget}, seed={seed})"
    kinds = ((task, Task, "Task"), (budget, Budget, "Budget"), (table, LatencyTable | None, "LatencyTable"))
    for value, kind, name in (*kinds, (folder, Path | None, "Path")):
        if not isinstance(value, kind):
            raise InputError(call, f"where a {name} belongs is a {type(value).__name__}", f"Give a {name}")
    _check(call, step, decay, short_epochs, epochs, importance, multiple, min_width)
    check_model(call, task.model, keep)
    if (short_epochs or epochs) and (task.train is None or task.loss is None):
        raise TaskError(
            call, "it trains, and the task gives no train data or no loss", "Add them, or set short_epochs=0"
        )
    trains = task.train is not None and task.loss is not None
    goal = goal_of(call, budget, table, task.model, task.example_inputs)
    if multiple is None:
        multiple = 1 if table is None else preferred_multiple(table)
    choices = Choices(tuple(keep), importance, multiple, min_width, depth, seed)
    zeros = _stock_names(call, task.model, pruned)
    search = _Search(call, task, choices, Pace(step, decay), short_epochs, zeros, seed, progress, folder)
    state, measured = _to_budget(search, goal)
    model, changes = state.model, state.changes
    last = task.training.recovery_epochs if epochs is None and trains else epochs
    if last and state.rounds:
        model, steps = search.trained(model, last, f"training for {last} epochs")
        changes = (*changes, Change("", "training steps", 0, steps))
    notes: tuple[Note, ...] = ()
    if measured is not None:
        notes = (_measured(goal, measured),)
    return Searched(
        Compressed(model, changes, notes, search.pruned_of(model)),
        state.trace,
        goal.unit,
        goal.most,
        goal.cost_of(model, task.example_inputs),
        None if measured is None else measured.median,
    )


class _Search:
    """What each round works with."""

    def __init__(
        self,
        call: str,
        task: Task,
        choices: Choices,
        pace: Pace,
        short_epochs: int,
        zeros: frozenset[str],
        seed: int,
        progress: Progress,
        folder: Path | None,
    ) -> None:
        self.call, self.task, self.choices, self.pace = call, task, choices, pace
        self.zeros, self.short_epochs, self.seed, self.progress, self.folder = (
            zeros,
            short_epochs,
            seed,
            progress,
            folder,
        )
        self.metric = resolve_metric(task.metric, task.higher_is_better)

    def to(self, goal: Goal) -> State:
        """Search until ``goal`` is met."""
        load, save = nothing_kept()
        if self.folder is not None:
            judged = (named(self.task.metric), self.task.higher_is_better, named(self.task.loss))
            settings = (
                goal,
                self.choices,
                self.pace,
                self.short_epochs,
                sorted(self.zeros),
                self.seed,
                self.task.training,
                judged,
            )
            key = fingerprint(self.task.model, (*_tensors(self.task), *self.task.example_inputs), *settings)
            rounds = Rounds(self.folder / key, key, self.task.model)
            load, save = rounds.load, rounds.save
        return adapt_architecture(
            self.call,
            self.task.model,
            self.task.example_inputs,
            goal,
            self.quality,
            recover=self.recovered if self.short_epochs else None,
            choices=self.choices,
            pace=self.pace,
            load=load,
            save=save,
            watch=self.progress,
        )

    def quality(self, model: nn.Module) -> float:
        """The task's metric on validation, turned so that higher is better."""
        split, size = self.task.validation, 256
        parts = [
            forward_eval(model, split.take(slice(start, start + size)).inputs)
            for start in range(0, len(split), size)
        ]
        value = compute(self.metric, torch.cat(parts), split.targets)
        return value if self.metric.higher_is_better else -value

    def recovered(self, model: nn.Module, number: int) -> nn.Module:
        """A proposal after its short training."""
        return self.trained(model, self.short_epochs, "short training", self.seed + number)[0]

    def trained(
        self, model: nn.Module, epochs: int, what: str, seed: int | None = None
    ) -> tuple[nn.Module, int]:
        """A trained copy, and the optimizer steps that it took."""
        task = self.task
        assert task.train is not None
        assert task.loss is not None
        fitted = fit(
            model,
            task.train,
            task.validation,
            supervised(task.loss),
            task_schedule(task.training, epochs, self.seed if seed is None else seed),
            after_step=lambda made: keep_zeros(made, self.pruned_of(made)),
            progress=self.progress,
            what=what,
        )
        return fitted.model, fitted.steps

    def pruned_of(self, model: nn.Module) -> frozenset[str]:
        """The parameters whose zeros stay zero, by their names in ``model``, whose lists may have become shorter."""
        return names_now(model, self.zeros)


def _stock_names(call: str, model: nn.Module, pruned: Collection[str]) -> frozenset[str]:
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name in pruned:
        if name not in known:
            raise InputError(
                call, f"pruned names {name!r}, which is no parameter", "Give names as Compressed.pruned does"
            )
    return frozenset(stock_name(model, name) for name in pruned)


def _tensors(task: Task) -> tuple[Tensor, ...]:
    """All that a search learns from and is judged by."""
    splits = [split for split in (task.train, task.validation) if split is not None]
    return tuple(tensor for split in splits for tensor in (*split.inputs, split.targets))


def _to_budget(search: _Search, goal: Goal) -> tuple[State, Latency | None]:
    """Search and, for a latency, measure; where the measurement is over the budget, aim lower by as much."""
    state = search.to(goal)
    if goal.unit != "latency_ms":
        return state, None
    assert goal.table is not None
    aim = goal
    threads = goal.table.machine.threads
    whole, example = open_network(search.task.model, search.task.example_inputs, threads)
    for turn in range(3):
        cut, _ = open_network(state.model, search.task.example_inputs, threads)
        measured = beside(whole, cut, example, threads)
        over = measured.ratio_to_baseline.value * goal.table.whole_ms / goal.most
        if over <= 1 or turn == 2:
            break
        aim = replace(aim, most=min(aim.most, aim.cost_of(state.model, search.task.example_inputs)) / over)
        try:
            state = search.to(aim)
        except ModelError:  # the least that can be had stays, and its note says what was measured
            break
    return state, measured


def _measured(goal: Goal, measured: Latency) -> Note:
    assert goal.table is not None
    ratio = measured.ratio_to_baseline
    beside = ratio.value * goal.table.whole_ms
    text = (
        f"measured {measured.median:.4g} ms ({measured.low:.4g} to {measured.high:.4g}), {ratio.value:.1%} of the "
        f"whole network ({ratio.low:.1%} to {ratio.high:.1%}) beside it: {beside:.4g} ms by the table's whole network"
    )
    if beside > goal.most:
        return Note("TP602", "warning", None, f"{text}, over the budget of {goal.most:.4g} ms")
    return Note("TP601", "note", None, text)


def _check(
    call: str,
    step: float,
    decay: float,
    short_epochs: int,
    epochs: int | None,
    importance: str,
    multiple: int | None,
    min_width: int,
) -> None:
    check_method(call, importance, SALIENCIES)
    if importance in (*OF_THE_LOSS, *OF_ACTIVATIONS):
        raise InputError(
            call, f"{importance!r} needs data for every proposal", "Choose 'l2', 'fpgm' or 'scale'"
        )
    for name, share, most in (("step", step, 0.999), ("decay", decay, 1.0)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= most:
            raise InputError(call, f"{name} is {share!r}", "Give a share above 0 and below 1")
    for name, number, least in (
        ("short_epochs", short_epochs, 0),
        ("epochs", epochs, 0),
        ("multiple", multiple, 1),
        ("min_width", min_width, 1),
    ):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
            raise InputError(call, f"{name} is {number!r}", f"Give a whole number from {least}")
