"""What became of every pair of techniques on one network: facts, as they are kept in composition.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tinypress.receipt import Drop


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Combined(_Fact):
    """Two steps in one order. ``recipe`` is what was carried out, a training included.

    Either ``forbidden`` says why no network can have this order, or ``impossible`` why this task or network cannot
    have one of the steps, or ``drop`` is how much worse than the original network the shipped file is on test.
    """

    first: str
    second: str
    recipe: tuple[dict[str, Any], ...]
    forbidden: str | None = None
    impossible: str | None = None
    validation: float | None = None
    quality: float | None = None
    drop: Drop | None = None
    bytes: int | None = None
    ships: Literal["onnx", "archive"] | None = None
    seconds: float | None = None


class Orders(_Fact):
    """The order that is better on validation (or, at a tie, as the steps were given), and what it gains on test.

    ``gain`` is how much worse the other order is there.
    """

    first: str
    second: str
    tie_on_validation: bool
    gain: Drop

    @property
    def settled(self) -> Literal["better", "worse", "no difference seen"]:
        """What test says of the choice: ``worse`` where validation chose the worse order."""
        if self.gain.low > 0:
            return "better"
        return "worse" if self.gain.high < 0 else "no difference seen"


class Compositions(_Fact):
    """Every pair of ``steps`` (by their labels) in both orders; ``orders`` has the pairs of which both work."""

    tinypress: str
    task: str
    about: str
    metric: str
    unit: Literal["points", "metric"]
    seed: int
    epochs: int | None
    baseline: float
    samples: int
    steps: dict[str, dict[str, Any]]
    pairs: tuple[Combined, ...]
    orders: tuple[Orders, ...]

    def pair(self, first: str, second: str) -> Combined:
        """The pair in this order."""
        return next(pair for pair in self.pairs if (pair.first, pair.second) == (first, second))
