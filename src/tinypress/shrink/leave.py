"""Takes whole layers out of a copy of the network, and holds it against the whole one without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tinypress.layers import Zero, copy_model, replace_module, shorten
from tinypress.shrink.branches import Branch, outputs_without_branches
from tinypress.shrink.distance import difference
from tinypress.shrink.residual import Residual, outputs_without

Way = Literal["list", "identity", "branch"]
"""How a layer leaves: the list that holds it becomes shorter, ``nn.Identity`` takes its place, or of a branch
``Zero`` takes the place of the last layer and ``nn.Identity`` that of the others."""


@dataclass(frozen=True)
class Leaver:
    """A layer, or the layers of a branch, that can leave, and how."""

    layer: Residual | Branch
    way: Way

    @property
    def paths(self) -> tuple[str, ...]:
        return paths_of(self.layer)

    @property
    def name(self) -> str:
        """What error texts and notes call it."""
        return self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} to {self.paths[-1]}"


def paths_of(layer: Residual | Branch) -> tuple[str, ...]:
    """The modules that leave."""
    return layer.paths if isinstance(layer, Branch) else (layer.path,)


def holder_of(layer: Residual | Branch) -> str:
    """The path of what holds the layer."""
    return paths_of(layer)[0].rpartition(".")[0]


def taken_out(model: nn.Module, leavers: Sequence[Leaver]) -> nn.Module:
    """A copy of ``model`` without these layers."""
    made = copy_model(model)
    gone: dict[str, set[int]] = {}
    for leaver in leavers:
        if leaver.way == "list":
            gone.setdefault(holder_of(leaver.layer), set()).add(int(leaver.paths[0].rpartition(".")[2]))
            continue
        for path in leaver.paths:
            last = leaver.way == "branch" and path == leaver.paths[-1]
            replace_module(made, path, Zero() if last else nn.Identity())
    # inner lists first, whose paths hold as long as the outer ones are whole
    for path in sorted(gone, key=lambda path: -path.count(".")):
        entries = made.get_submodule(path)
        assert isinstance(entries, nn.ModuleList)
        shorten(made, path, [place for place in range(len(entries)) if place not in gone[path]])
    return made


def failure_without(
    model: nn.Module, leavers: Sequence[Leaver], example_inputs: tuple[Tensor, ...]
) -> str | None:
    """How a network without these layers differs from the whole one in which they add nothing; None if it does not."""
    branches = [leaver.layer for leaver in leavers if isinstance(leaver.layer, Branch)]
    if branches:
        traced = branches[0].traced
        return difference(
            taken_out(model, leavers), traced.example, outputs_without_branches(model, branches, traced)
        )
    layers = [leaver.layer for leaver in leavers if isinstance(leaver.layer, Residual)]
    return difference(
        taken_out(model, leavers), example_inputs, outputs_without(model, layers, example_inputs)
    )


def leavers(
    model: nn.Module, layers: Sequence[Residual | Branch], example_inputs: tuple[Tensor, ...]
) -> tuple[tuple[Leaver, ...], Mapping[str, str]]:
    """Those of ``layers`` that can leave, each tried alone; for the others what then goes wrong."""
    found: list[Leaver] = []
    failures: dict[str, str] = {}
    for layer in layers:
        ways: tuple[Way, ...] = ("branch",)
        if isinstance(layer, Residual):
            listed = type(model.get_submodule(holder_of(layer))) is nn.ModuleList
            ways = ("list", "identity") if listed else ("identity",)
        failed = []
        for way in ways:
            leaver = Leaver(layer, way)
            failure = failure_without(model, [leaver], example_inputs)
            if failure is None:
                found.append(leaver)
                break
            failed.append(failure)
        else:
            failures[leaver.name] = failed[0]
    return tuple(found), failures
