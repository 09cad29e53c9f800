"""The rounds of a search on disk, so that one that was stopped goes on: each round's network, and what was tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from tinypress.archive import read_archive, write_archive
from tinypress.errors import ArtifactError
from tinypress.facts import Change, Compressed
from tinypress.files import sha256, write_bytes
from tinypress.search.netadapt import State, Tried

_MOST_BYTES = 16 * 2**20


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Tried(_Fact):
    round: int
    what: str
    cost: float
    quality: float
    chosen: bool


class _Change(_Fact):
    layer: str
    what: str
    was: float | int | str
    now: float | int | str


class _Round(_Fact):
    format: Literal[1] = 1
    key: str
    network: str  # sha256 of its file
    rounds: Annotated[int, Field(ge=1)]
    trace: Annotated[tuple[_Tried, ...], Field(strict=False)]
    changes: Annotated[tuple[_Change, ...], Field(strict=False)]


@dataclass(frozen=True)
class Rounds:
    """``FOLDER/round-N.safetensors`` is the network after round N, ``round-N.json`` is written last and marks it as
    finished. A round of another search (another ``key``) or another network, or a damaged one, is done again."""

    folder: Path
    key: str
    stock: nn.Module

    def load(self, rounds: int) -> State | None:
        """The state after that round, if it was finished."""
        try:
            with (self.folder / f"round-{rounds}.json").open("rb") as file:
                known = _Round.model_validate_json(file.read(_MOST_BYTES))
            chosen = any(each.chosen and each.round == rounds for each in known.trace)
            if known.key != self.key or known.rounds != rounds or not chosen:
                return None
            path = self.folder / f"round-{rounds}.safetensors"
            if sha256(path.read_bytes()) != known.network:
                return None
            model = read_archive(path, self.stock).model
        except (OSError, ValidationError, ArtifactError):
            return None
        return State(
            model.train(self.stock.training),
            rounds,
            tuple(Change(**each.model_dump()) for each in known.changes),
            tuple(Tried(**each.model_dump()) for each in known.trace),
        )

    def save(self, state: State) -> None:
        """Keep the state after its round.

        Raises:
            RunError: the folder cannot be written.
        """
        path = self.folder / f"round-{state.rounds}.safetensors"
        write_archive(path, Compressed(state.model))
        known = _Round(
            key=self.key,
            network=sha256(path.read_bytes()),
            rounds=state.rounds,
            trace=tuple(_Tried(**vars(each)) for each in state.trace),
            changes=tuple(_Change(**vars(each)) for each in state.changes),
        )
        write_bytes(
            self.folder / f"round-{state.rounds}.json", known.model_dump_json(indent=1).encode() + b"\n"
        )


def nothing_kept() -> tuple[Callable[[int], State | None], Callable[[State], None]]:
    """To load and save where no folder is given."""
    return (lambda rounds: None), (lambda state: None)
