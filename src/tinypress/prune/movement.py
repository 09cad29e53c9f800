"""Movement pruning: weights that training moves away from zero stay, however small they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.prune.gradual import cubic_sparsity
from tinypress.prune.sparsity import count_to_prune
from tinypress.prune.weights import prunable_weights
from tinypress.train.hooks import Hook, MakeHook


def movement_pruning(
    sparsity: float,
    *,
    rate: float = 1.0,
    begin: float = 0.0,
    end: float = 0.5,
    scope: Literal["global", "layer"] = "global",
    layers: Sequence[str] | None = None,
) -> MakeHook:
    """A hook for ``fit`` that learns which weights go (Sanh et al. 2020, arXiv:2005.07683, sections 3 and 4).

    S ← S - rate * ∂L/∂W' ⊙ W after every step, with W' = W ⊙ Top_v(S) what the network computes with (the straight-
    through gradient of eq. 2). The scores start at 0, and the kept share 1 - v falls along ``cubic_sparsity``. A
    weight that is masked keeps its value, takes no step, and comes back with it where its score rises again. Among
    equal scores the earlier goes first.

    Args:
        sparsity: in the end.
        rate: the step of the scores; where the ranking alone matters, as here, any positive number will do.
        begin, end: shares 0..1 of the training's steps between which the sparsity grows; the mask still moves after.
        scope: ``global`` ranks the scores of all layers together, ``layer`` each on its own.

    Raises:
        InputError: a setting is out of range; when the training begins, also a wrong name.
    """
    call = f"movement_pruning({sparsity!r}, rate={rate!r}, begin={begin!r}, end={end!r}, scope={scope!r})"
    count_to_prune(call, sparsity, 0)
    if not 0 <= begin < end <= 1:
        raise InputError(call, "begin and end do not grow", "Give 0 <= begin < end <= 1")
    if not rate > 0 or scope not in ("global", "layer"):
        raise InputError(call, "rate or scope means nothing", "Give a positive rate, 'global' or 'layer'")

    def make(model: nn.Module, total: int) -> Hook:
        first = round(begin * total)
        last = max(first + 1, round(end * total))
        weights, _ = prunable_weights(call, model, layers)
        dense = {name: x.detach().clone() for name, x in weights.items()}
        scores = {name: torch.zeros_like(x) for name, x in dense.items()}
        masks = {name: torch.ones_like(x, dtype=torch.bool) for name, x in dense.items()}

        def before(step: int) -> None:
            for name, parameter in weights.items():
                if parameter.grad is not None:
                    scores[name].sub_(rate * parameter.grad * dense[name])
                    parameter.grad.mul_(masks[name])

        def after(step: int) -> None:
            now = cubic_sparsity(step, first, last, 0.0, sparsity)
            with torch.no_grad():
                for name, parameter in weights.items():
                    dense[name].copy_(torch.where(masks[name], parameter, dense[name]))
                _keep_highest(call, scores, now, scope == "global", masks)
                for name, parameter in weights.items():
                    parameter.copy_(dense[name].masked_fill(~masks[name], 0.0))

        kinds = (("dense", dense), ("score", scores), ("mask", masks))
        state = {f"{kind}.{name}": x for kind, tensors in kinds for name, x in tensors.items()}
        return Hook(after, before, state, settled=last)

    return make


def _keep_highest(
    call: str, scores: dict[str, Tensor], sparsity: float, together: bool, masks: dict[str, Tensor]
) -> None:
    """Set ``masks`` to what stays when the lowest scores go."""
    for names in [list(scores)] if together else [[name] for name in scores]:
        row = torch.cat([scores[name].reshape(-1) for name in names])
        stays = torch.ones_like(row, dtype=torch.bool)
        stays[row.sort(stable=True).indices[: count_to_prune(call, sparsity, len(row))]] = False
        for name, part in zip(
            names, torch.split(stays, [scores[name].numel() for name in names]), strict=True
        ):
            masks[name].copy_(part.view(masks[name].shape))
