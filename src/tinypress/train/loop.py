"""The training loop. What is learnt is an ``Objective``; what must hold around each step is a ``Hook``."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError, ModelError
from tinypress.files import canonical, sha256
from tinypress.task import Split
from tinypress.train.checkpoint import (
    Checkpoint,
    Moving,
    State,
    check_can_be_kept,
    restore_state,
    save_state,
)
from tinypress.train.hooks import MakeHook, keeping
from tinypress.train.objective import Objective, evaluate, mean_objective, on_device, supervised
from tinypress.train.processes import Processes, add_gradients, average_buffers, one_process
from tinypress.train.progress import Progress, silent
from tinypress.train.schedule import Schedule, check_schedule, make_optimizer, next_rate
from tinypress.train.sealed import hash_of

__all__ = ["Fitted", "Objective", "Progress", "Schedule", "fit", "mean_objective", "silent", "supervised"]


@dataclass(frozen=True)
class Fitted:
    """A trained network with the epoch whose weights were kept and the optimizer steps that were taken."""

    model: nn.Module
    best_epoch: int
    epochs: int
    steps: int


def fit(
    model: nn.Module,
    train: Split,
    validation: Split,
    objective: Objective,
    schedule: Schedule,
    *,
    after_step: Callable[[nn.Module], Callable[[], None]] | None = None,
    hooks: Sequence[MakeHook] = (),
    checkpoint: Checkpoint | None = None,
    processes: Processes | None = None,
    taken: int = 0,
    progress: Progress = silent,
    what: str = "training",
) -> Fitted:
    """Train a copy of ``model`` and return it with the weights of its best epoch on validation.

    Equal arguments, thread count and starting weights give bit-equal results on the CPU: batches, dropout and
    initial noise come from ``schedule.seed`` alone, and the caller's random state is left as it was. A training
    with a ``checkpoint`` that was killed goes on from there when it is called again, to the same bits.

    Args:
        after_step: given the network, returns what is called after every optimizer step (keeping zeros zero).
        hooks: called around every optimizer step; they are made from the network before the first.
        checkpoint: where the state is kept while training goes on.
        processes: the processes that train together; by default this one alone, on the device of ``model``. The network
            that comes back is on that device in any case.
        taken: steps of the schedule that ``model`` has behind it: they are left out, with their data and rates.

    Raises:
        InputError: a setting that means nothing.
        ModelError: the loss became NaN or infinite (the step is named), or nothing in the network can be trained.
        RunError: the checkpoint cannot be written, or is that of another training.
    """
    call = f"fit({type(model).__name__}, {len(train)} samples, {schedule})"
    check_schedule(call, schedule)
    if len(train) < 2:
        raise DataError(call, "one sample cannot be trained on", "Give at least two")
    if checkpoint is not None:
        check_can_be_kept(call, model)
    facts = (
        {}
        if checkpoint is None
        else _facts(
            model, train, validation, schedule, f"{what} {checkpoint.key} {taken or ''}".strip(), processes
        )
    )
    model = copy.deepcopy(model)
    home = next((p.device for p in model.parameters()), None)
    if processes is not None:
        model = model.to(processes.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(call, "no parameter requires a gradient", "Unfreeze at least one")
    together = processes if processes is not None else one_process(parameters[0].device)
    # a last batch of one sample would break batch norm in training
    batches = max(1, math.ceil(len(train) / schedule.batch_size) - (len(train) % schedule.batch_size == 1))
    total = schedule.epochs * batches
    made = [*([] if after_step is None else [keeping(after_step)]), *hooks]
    keep = [make(model, total) for make in made]
    settled = max((hook.settled for hook in keep), default=0)
    if not 0 <= taken < total or settled > total:
        raise InputError(
            call, f"it has {total} steps, {taken} are taken, a hook needs {settled}", "Give more epochs"
        )
    moving = Moving(model, make_optimizer(parameters, schedule), parameters, keep, together, facts)
    order = torch.Generator().manual_seed(schedule.seed)
    for _ in range(taken // batches):
        torch.randperm(len(train), generator=order)
    for step in range(1, taken + 1):
        _advance(moving, schedule, step, total)
    state = State(order.get_state(), copy.deepcopy(model.state_dict()), taken // batches + 1, taken % batches)
    cuda = [together.device] if together.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(schedule.seed + together.rank)
        if checkpoint is not None:
            restore_state(call, checkpoint.path, state, moving)
        saver = _Saver(checkpoint, state, moving)
        while state.epoch <= schedule.epochs and not _stalled(state, schedule, math.ceil(settled / batches)):
            order.set_state(state.order)
            rows = torch.randperm(len(train), generator=order)
            model.train()
            while state.batch < batches:
                start = state.batch * schedule.batch_size
                step = (state.epoch - 1) * batches + state.batch + 1
                place = f"step {state.batch + 1} of epoch {state.epoch}"
                part = rows[start : start + schedule.batch_size]
                due = _step(call, place, moving, objective, train, part, schedule, step, saver.due())
                _advance(moving, schedule, step, total)
                for hook in keep:
                    hook.after(step)
                state.batch += 1
                saver.save(due)
            if together.count > 1:
                average_buffers(model, together)
            value = mean_objective(model, validation, objective, processes=together)
            if value < state.best and state.epoch * batches >= settled:
                state.best, state.best_epoch = value, state.epoch
                state.best_state = copy.deepcopy(model.state_dict())
            progress(what, state.epoch, schedule.epochs)
            state.order, state.epoch, state.batch = order.get_state(), state.epoch + 1, 0
        saver.save(True)
    model.load_state_dict(state.best_state)
    model.to(home).eval()
    return Fitted(model, state.best_epoch, state.epoch - 1, (state.epoch - 1) * batches - taken)


def _step(
    call: str,
    place: str,
    moving: Moving,
    objective: Objective,
    train: Split,
    rows: Tensor,
    schedule: Schedule,
    step: int,
    due: bool,
) -> bool:
    """One optimizer step on the samples at ``rows``; whether the state is to be saved after it, for all alike."""
    together, model = moving.processes, moving.model
    own = rows if together.count == 1 else rows[together.rank :: together.count]
    moving.optimizer.zero_grad(set_to_none=True)
    seen = torch.zeros(2, dtype=torch.float64)
    if len(own):
        low = schedule.precision == "bfloat16"
        with torch.autocast(together.device.type, torch.bfloat16) if low else contextlib.nullcontext():
            loss = evaluate(call, objective, model, on_device(train.take(own), model))
        value = float(loss.detach())
        if together.count > 1:
            loss = loss * (len(own) / len(rows))
            seen[0] = float(loss.detach())
    if together.count > 1:
        seen[1] = float(due and together.rank == 0)
        value, due = (seen := together.add(seen))[0].item(), bool(seen[1])
    if not math.isfinite(value):
        raise ModelError(
            call, f"the loss is {value} at {place}", "Lower the learning rate or check the data for outliers"
        )
    if len(own):
        loss.backward()  # type: ignore[no-untyped-call]
    if together.count > 1:
        add_gradients(moving.parameters, together)
    if schedule.clip_norm is not None:
        nn.utils.clip_grad_norm_(moving.parameters, schedule.clip_norm)
    for hook in moving.hooks:
        hook.before(step)
    moving.optimizer.step()
    return due


class _Saver:
    """Saves the state when so many seconds have passed since it was last saved."""

    def __init__(self, checkpoint: Checkpoint | None, state: State, moving: Moving) -> None:
        self.checkpoint, self.state, self.moving = checkpoint, state, moving
        self.last = time.monotonic()

    def due(self) -> bool:
        return self.checkpoint is not None and time.monotonic() - self.last >= self.checkpoint.every_seconds

    def save(self, due: bool) -> None:
        if self.checkpoint is not None and due:
            save_state(self.checkpoint.path, self.state, self.moving)
            self.last = time.monotonic()


def _stalled(state: State, schedule: Schedule, settled: int) -> bool:
    """Whether patience is at an end, counted from the epoch at which all hooks have ``settled``."""
    done = state.epoch - 1
    return (
        schedule.patience is not None
        and done >= max(1, settled)
        and done - max(state.best_epoch, settled) >= schedule.patience
    )


def _advance(moving: Moving, schedule: Schedule, step: int, total: int) -> None:
    """Set the learning rate of the step after ``step``."""
    group = moving.optimizer.param_groups[0]
    group["lr"] = next_rate(schedule, group["lr"], step, total)


def _facts(
    model: nn.Module,
    train: Split,
    validation: Split,
    schedule: Schedule,
    work: str,
    processes: Processes | None,
) -> dict[str, str]:
    """What tells this training from any other, each part a hash."""
    data: dict[str, Tensor] = {}
    for name, split in (("train", train), ("validation", validation)):
        data |= {f"{name}.{place}": x for place, x in enumerate((*split.inputs, split.targets))}
    return {
        "network": hash_of({"kind": type(model).__name__}, dict(model.state_dict())),
        "data": hash_of({}, data),
        "schedule": sha256(canonical(asdict(schedule))),
        "work": work,
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads{_elsewhere(processes)}",
    }


def _elsewhere(processes: Processes | None) -> str:
    """Where the training is not done on the processor."""
    return "" if processes is None or processes.device.type == "cpu" else f", {processes.device.type}"
