"""How long, how fast and with which optimizer a network is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tinypress.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """AdamW with a cosine learning rate over ``epochs``; ``patience`` ends it early when validation stalls.

    ``optimizer`` may be ``sgd`` with ``momentum``. In the first ``warmup_steps`` the rate rises linearly.
    ``clip_norm`` bounds the norm of all gradients together; ``None`` leaves them as they are. ``precision``
    ``bfloat16`` computes the training's forward passes under autocast; weights stay as they are.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 1e-4
    patience: int | None = None
    seed: int = 0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    warmup_steps: int = 0
    clip_norm: float | None = 5.0
    precision: Literal["float32", "bfloat16"] = "float32"


def check_schedule(call: str, schedule: Schedule) -> None:
    """Refuse settings that mean nothing.

    Raises:
        InputError: names the setting.
    """
    if schedule.epochs < 1 or schedule.batch_size < 1 or not schedule.learning_rate > 0:
        raise InputError(
            call, "epochs, batch_size and learning_rate must be positive", "Give positive values"
        )
    if schedule.optimizer not in ("adamw", "sgd"):
        raise InputError(call, f"there is no optimizer {schedule.optimizer!r}", "Give 'adamw' or 'sgd'")
    if schedule.precision not in ("float32", "bfloat16"):
        raise InputError(call, f"the precision is {schedule.precision!r}", "Give 'float32' or 'bfloat16'")
    if not 0 <= schedule.momentum < 1:
        raise InputError(call, f"momentum is {schedule.momentum!r}", "Give a number from 0 to below 1")
    if schedule.warmup_steps < 0:
        raise InputError(call, f"warmup_steps is {schedule.warmup_steps!r}", "Give 0 or more steps")
    if schedule.clip_norm is not None and not schedule.clip_norm > 0:
        raise InputError(call, f"clip_norm is {schedule.clip_norm!r}", "Give a positive norm, or None")


def make_optimizer(parameters: Sequence[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """The schedule's optimizer, at the rate of its first step."""
    rate = first_rate(schedule)
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
            foreach=True,
        )
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=schedule.weight_decay, foreach=True)


def first_rate(schedule: Schedule) -> float:
    """The learning rate of the first step."""
    return schedule.learning_rate / max(1, schedule.warmup_steps)


def next_rate(schedule: Schedule, rate: float, taken: int, total: int) -> float:
    """The learning rate after ``taken`` of ``total`` steps, of which the last was taken at ``rate``.

    Linear: η (t + 1) / W for the t-th of W warm-up steps, counted from 0. Then the cosine
    η (1 + cos(π u)) / 2 over the share u of the steps after warm-up that is done (Loshchilov and Hutter, "SGDR"
    2017, eq. 5, without restarts), as the quotient of two neighbours: so it was first computed here, and a closed
    form would differ in the last bits of every network trained before.
    """
    warm, top = schedule.warmup_steps, schedule.learning_rate
    if taken < warm:
        return top * (taken + 1) / warm
    if taken == warm:
        return top
    length = max(1, total - warm)
    now = 1 + math.cos(math.pi * (taken - warm) / length)
    before = 1 + math.cos(math.pi * (taken - warm - 1) / length)
    return now / before * rate if before else 0.0
