"""A network of a few weights and its task, and what every refusal must hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import TinypressError
from tinypress.press.compare import BASELINE
from tinypress.press.recipe import Recipe
from tinypress.press.step import Step
from tinypress.task import Split, Task, Training

EXAMPLE = (torch.zeros(2, 2),)
NAN, INF = float("nan"), float("inf")


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))


def network(value: float | None = None) -> nn.Module:
    """A network; its first weight is ``value`` where that is given."""
    torch.manual_seed(0)
    model = build()
    if value is not None:
        model[0].weight.data[0, 0] = value
    return model


def samples(count: int = 40, seed: int = 1) -> Split:
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return Split((x,), (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def task(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "name": "tiny",
        "model": network(),
        "build": build,
        "example_inputs": EXAMPLE,
        "train": samples(64, 1),
        "validation": samples(40, 2),
        "test": samples(40, 3),
        "loss": nn.functional.cross_entropy,
        "metric": "accuracy",
        "training": Training(max_epochs=1, recovery_epochs=1),
    }
    return Task(**{**given, **changes})


def recipes(*steps: Step) -> tuple[Recipe, ...]:
    return (BASELINE, Recipe(name="pressed", steps=steps)) if steps else (BASELINE,)


@contextlib.contextmanager
def refused(kind: type[TinypressError], *words: str) -> Iterator[None]:
    """Exactly ``kind`` is raised; its text repeats the call, holds ``words`` and ends with a remedy."""
    with pytest.raises(TinypressError) as caught:
        yield
    error, text = caught.value, str(caught.value)
    assert type(error) is kind, text
    for word in words:
        assert word in text, text
    assert text.startswith(f"{error.call}: "), text
    assert text.endswith(error.remedy), text
    assert error.remedy[:1].isupper(), text
    assert len(error.remedy.split()) >= 2, text
    assert len(text) < 700, text
    assert "\x1b" not in text, text
    assert "Traceback" not in text, text


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    """Bit for bit the values of ``before``, NaN included."""
    after = model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert after[name].numpy().tobytes() == value.numpy().tobytes(), name
