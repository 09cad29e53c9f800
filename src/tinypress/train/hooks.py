"""What a technique does around every optimizer step. The loop calls hooks and knows no technique."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn


def _nothing(step: int) -> None:
    """What a hook does that has nothing to do here."""


@dataclass(frozen=True)
class Hook:
    """Functions called around each optimizer step with its number, from 1.

    ``before`` sees gradients and weights that have not yet moved, ``after`` the weights that have. ``state`` holds
    every tensor that the hook remembers from step to step; it changes them in place and never replaces them, so
    that a checkpoint keeps and restores them. ``settled`` is the step from which the network is what the hook makes
    of it: weights of epochs that end before are not kept as the best.
    """

    after: Callable[[int], None] = _nothing
    before: Callable[[int], None] = _nothing
    state: Mapping[str, Tensor] = field(default_factory=dict)
    settled: int = 0


MakeHook = Callable[[nn.Module, int], Hook]
"""Makes a hook from the network that is trained and the number of steps that the training takes at most."""


def keeping(after_step: Callable[[nn.Module], Callable[[], None]]) -> MakeHook:
    """The hook of a function that is made once from the network and called after every step."""

    def make(model: nn.Module, total: int) -> Hook:
        keep = after_step(model)
        return Hook(after=lambda step: keep())

    return make


def states(hooks: Sequence[Hook]) -> dict[str, Tensor]:
    """Everything that the hooks remember, under names of their own."""
    return {f"{place}.{name}": x for place, hook in enumerate(hooks) for name, x in hook.state.items()}
