"""What each unit puts out on calibration samples, read off the traced graph where the unit is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.graph import Node, Traced
from tinypress.graph.run import compute
from tinypress.shrink.groups import Survey
from tinypress.shrink.reference import execute
from tinypress.shrink.saliency import Evidence


def activities(
    call: str,
    traced: Traced,
    found: Survey,
    model: nn.Module,
    calibration: tuple[Tensor, ...] | None,
    batch: int = 64,
) -> Evidence:
    """Mean |a| and sqrt(sum a^2) of each unit of each group over samples and positions.

    Args:
        calibration: one tensor [N, ...] per argument of ``forward``.
        batch: how many samples run at a time; as many as the network was traced with where that is fixed.

    Raises:
        InputError: there are no samples, or not the same number in each tensor.
        ModelError: the network does not run on them.
    """
    if not calibration or len({len(x) for x in calibration}) != 1 or not len(calibration[0]):
        raise InputError(
            call,
            "this importance needs calibration samples",
            "Give calibration=(inputs,), one tensor [N, ...] per argument of forward(); or choose 'l2'",
        )
    nodes = traced.by_name()
    if not any(nodes[name].batch_dims for name in traced.inputs):
        batch = len(traced.example[0])
    unit_of = np.full(len(found.root), -1)
    group_of = np.full(len(found.root), -1)
    for number, units in enumerate(found.units):
        unit_of[units], group_of[units] = np.arange(len(units)), number
    sums = [torch.zeros(group.width, dtype=torch.float64) for group in found.groups]
    squares = [torch.zeros(group.width, dtype=torch.float64) for group in found.groups]
    counts = [0] * len(found.groups)
    sources = {name for group in found.groups for name, _ in group.sources}

    def add(node: Node, value: Any) -> None:
        read = any(nodes[name].tensor in sources for name in node.inputs if name in nodes)
        for dim, labels in enumerate(found.labels.get(node.name, ()) if read else ()):
            roots = found.root[labels]
            for number in np.unique(group_of[roots]):
                if number < 0 or not isinstance(value, Tensor) or value.shape[dim] != len(labels):
                    continue
                at = np.flatnonzero(group_of[roots] == number)
                rows = (
                    value.detach()
                    .cpu()
                    .movedim(dim, 0)
                    .reshape(len(labels), -1)[torch.from_numpy(at)]
                    .double()
                )
                places = torch.from_numpy(unit_of[roots[at]])
                sums[number].index_add_(0, places, rows.abs().mean(1))
                squares[number].index_add_(0, places, rows.square().sum(1))
                counts[number] += 1

    def call_and_add(node: Node, values: Mapping[str, Any]) -> Any:
        if node.kind != "call":
            return values[node.name]
        value = compute(node, values)
        add(node, value)
        return value

    whole = len(calibration[0]) // batch * batch
    try:
        for start in range(0, whole or len(calibration[0]), batch):
            execute(traced, model, tuple(x[start : start + batch] for x in calibration), call_and_add)
    except Exception as error:
        raise ModelError(
            call,
            f"the network does not run on the calibration samples ({type(error).__name__}: {error})",
            "Give samples of the shapes and dtypes of example_inputs",
        ) from error
    return Evidence(
        activity={n: total / max(counts[n], 1) for n, total in enumerate(sums)},
        energy={n: total.sqrt() for n, total in enumerate(squares)},
    )
