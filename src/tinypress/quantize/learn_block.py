"""One block learns: latent weights, their steps and the biases, so that it makes what the float block made.

    min over latents, steps, biases of  || wanted - f(x^; W^, b^) ||^2 / Var[wanted]

by Adam on batches of the samples. W^ is what the integers of the latent weights stand for; gradients pass through the
rounding as in ``fake.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tinypress.errors import InputError, ModelError
from tinypress.quantize.block_rows import Rows, only_tensor
from tinypress.quantize.fake_weight import FakeWeight


@dataclass(frozen=True)
class Reconstruction:
    """How long each block learns, and at which rates Adam begins; they fall to zero as a cosine.

    ``weight_rate`` is in steps of a weight's integers, ``scale_rate`` a share of each step, ``bias_rate`` in the unit
    of what the layer makes. ``seed`` draws the batches.
    """

    steps: int = 300
    batch_size: int = 32
    weight_rate: float = 0.02
    scale_rate: float = 1e-3
    bias_rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class Latents:
    """What a block learns, by the block's own names of parameters: float32, whatever the network is.

    ``zeros`` marks what stays zero, of weights and of biases.
    """

    weights: Mapping[str, nn.Parameter]
    fakes: Mapping[str, FakeWeight]
    biases: Mapping[str, nn.Parameter]
    zeros: Mapping[str, Tensor]

    def real(self) -> dict[str, Tensor]:
        """The parameters as the block computes with them; gradients flow."""
        return {own: self.fakes[own](weight) for own, weight in self.weights.items()} | dict(self.biases)

    def everything(self) -> list[nn.Parameter]:
        """All that is learnt, steps included."""
        return [*self.weights.values(), *self.biases.values(), *(fake.move for fake in self.fakes.values())]


def check_reconstruction(call: str, how: Reconstruction) -> None:
    """Refuse settings that mean nothing.

    Raises:
        InputError: names the setting.
    """
    for name, least in (("steps", 1), ("batch_size", 1), ("seed", 0)):
        value = getattr(how, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(call, f"{name} is {value!r}", f"Give a whole number from {least}")
    for name in ("weight_rate", "scale_rate", "bias_rate"):
        value = getattr(how, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(call, f"{name} is {value!r}", "Give 0 or more")


def learn_block(
    call: str,
    block: nn.Module,
    rows: Rows,
    wanted: Tensor,
    latents: Latents,
    how: Reconstruction,
    tell: Callable[[int], None],
) -> tuple[float, float] | None:
    """Learn ``latents`` in place; they are as they were where that made the block no better on all samples.

    Args:
        wanted: what the float block made, [N, ...].
        tell: is told how many steps are done.

    Returns:
        The error before and after, as a share of the variance of ``wanted``; ``None`` where there is no variance.

    Raises:
        ModelError: the error became NaN or infinite.
    """
    unit = float(wanted.float().var(0, correction=0).mean())
    if not unit:
        return None
    before = _error(block, rows, wanted, latents, how.batch_size) / unit
    kept = [parameter.detach().clone() for parameter in latents.everything()]
    optimizer = torch.optim.Adam(_groups(latents, how))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / how.steps))
    )
    draw = torch.Generator().manual_seed(how.seed)
    learnt = {**latents.weights, **latents.biases}
    with torch.enable_grad():
        for step in range(how.steps):
            tell(step)
            chosen = torch.randperm(len(wanted), generator=draw)[: how.batch_size].to(wanted.device)
            made = _made(block, rows, latents, chosen)
            loss = (made.float() - wanted[chosen].float()).square().mean() / unit
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for own, zero in latents.zeros.items():
                    learnt[own].masked_fill_(zero, 0.0)
    after = _error(block, rows, wanted, latents, how.batch_size) / unit
    if not (math.isfinite(before) and math.isfinite(after)):
        raise ModelError(call, f"its error was {before:.3g} and became {after:.3g}", "Give lower rates")
    if after >= before:
        with torch.no_grad():
            for parameter, was in zip(latents.everything(), kept, strict=True):
                parameter.copy_(was)
    return before, after


def _made(block: nn.Module, rows: Rows, latents: Latents, chosen: Tensor) -> Tensor:
    args, kwargs = rows.fed(chosen)
    real = {own: values.to(block.get_parameter(own).dtype) for own, values in latents.real().items()}
    return only_tensor(functional_call(block, real, args, kwargs))


@torch.no_grad()
def _error(block: nn.Module, rows: Rows, wanted: Tensor, latents: Latents, batch: int) -> float:
    """The mean squared error on all samples."""
    total = 0.0
    for part in torch.split(torch.arange(len(wanted), device=wanted.device), batch):
        difference = _made(block, rows, latents, part).float() - wanted[part].float()
        total += float(difference.double().square().sum())
    return total / wanted.numel()


def _groups(latents: Latents, how: Reconstruction) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for own, weight in latents.weights.items():
        fake = latents.fakes[own]
        with torch.no_grad():
            step = float(fake.scales(weight.reshape(len(weight), -1))[0].mean())
        groups.append({"params": [weight], "lr": how.weight_rate * step})
        groups.append({"params": [fake.move], "lr": how.scale_rate})
    groups += [{"params": [bias], "lr": how.bias_rate} for bias in latents.biases.values()]
    return groups
