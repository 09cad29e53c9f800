"""What a network may cost at most, and what it costs now or with some of its neurons gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.graph import Traced, trace
from tinypress.layers import stock_path
from tinypress.measure.compute import count_macs, macs_of
from tinypress.measure.latency_table import LatencyTable
from tinypress.shrink.budget import Budget, check_positive, limit_of
from tinypress.shrink.costs import Costing, costing
from tinypress.shrink.flow import widths_left
from tinypress.shrink.groups import Survey

Unit = Literal["parameters", "bytes", "macs", "latency_ms"]


@dataclass(frozen=True)
class Goal:
    """At most ``most`` of ``unit``; milliseconds are those that ``table`` predicts."""

    unit: Unit
    most: float
    table: LatencyTable | None = None

    def cost_of(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> float:
        """What ``model`` costs: parameters, bytes of parameters and buffers, MACs or milliseconds of one sample."""
        if self.unit == "macs":
            return count_macs(trace(model, example_inputs))
        if self.unit == "latency_ms":
            assert self.table is not None
            return self.table.predict_ms(
                {name: widths for name, (_, widths) in timed_layers(model, self.table).items()}
            )
        tensors = list(model.parameters())
        if self.unit == "parameters":
            return sum(tensor.numel() for tensor in tensors)
        return sum(tensor.numel() * tensor.element_size() for tensor in (*tensors, *model.buffers()))

    def without(self, traced: Traced, model: nn.Module, made: nn.Module, paths: Sequence[str]) -> float:
        """What ``made`` costs, which is ``model`` without the modules at ``paths``."""
        if self.unit != "macs":
            return self.cost_of(made, traced.example)
        shapes = {node.name: node.shape or () for node in traced}
        inside = [
            node
            for node in traced
            if node.kind == "call" and any(f"{node.module}.".startswith(f"{path}.") for path in paths)
        ]
        batch = max((x.shape[0] for x in traced.example if x.dim()), default=1)
        saved = sum(macs_of(node, shapes.__getitem__) for node in inside) // max(batch, 1)
        return count_macs(traced) - saved

    def costing(self, traced: Traced, found: Survey, model: nn.Module) -> Costing:
        """From the labels that are gone to the cost."""
        if self.unit != "latency_ms":
            return costing(traced, found, model, self.unit)
        assert self.table is not None
        table = self.table
        value_of = {node.tensor: node.name for node in traced if node.tensor is not None}
        first = {id(tensor): name for name, tensor in model.named_parameters()}
        layers = timed_layers(model, table)

        def cost(gone: NDArray[np.bool_]) -> float:
            widths, of = {}, widths_left(gone)
            for name, (path, (inputs, outputs)) in layers.items():
                weight = model.get_submodule(path).weight
                assert isinstance(weight, Tensor)
                dims = found.labels.get(value_of.get(first[id(weight)], ""), ())
                if len(dims) > 1:
                    left = [of(labels) for labels in dims[:2]]
                    grouped = weight.shape[1] != inputs  # its inputs go with its outputs
                    inputs = max(round(inputs * left[0] / outputs), 1) if grouped else left[1]
                    outputs = left[0]
                widths[name] = (max(inputs, 1), max(outputs, 1))
            return table.predict_ms(widths)

        return cost  # type: ignore[return-value]


def goal_of(
    call: str,
    budget: Budget,
    table: LatencyTable | None,
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
) -> Goal:
    """The goal that ``budget`` names, a share of what the network costs now turned into a number.

    Raises:
        InputError: it names none or several costs, a latency without a table, or a table of another network.
    """
    if budget.latency_ms is not None and budget.measure is None and table is not None:
        check_positive(call, "latency_ms", budget.latency_ms)
        if any(each is not None for each in (budget.parameters, budget.bytes, budget.macs)):
            raise InputError(
                call, "the budget names several costs", "Name one, such as Budget(latency_ms=0.2)"
            )
        missing = sorted({name for row in table.layers for name in row.layers} - set(_stock_paths(model)))
        if missing:
            raise InputError(
                call,
                f"the table has the layer {missing[0][:80]!r}, the network has not",
                "Measure its own table",
            )
        return Goal("latency_ms", float(budget.latency_ms), table)
    if budget.latency_ms is not None:
        raise InputError(
            call, "a latency is predicted from a table", "Give table=read_latency_table(path) and no measure"
        )
    limit = limit_of(call, budget)
    assert limit is not None
    unit, most = limit
    goal = Goal(unit, most, table)
    return Goal(unit, most * goal.cost_of(model, example_inputs), table) if most < 1 else goal


def timed_layers(model: nn.Module, table: LatencyTable) -> dict[str, tuple[str, tuple[int, int]]]:
    """The layers of the table that ``model`` still has, by their names there: path now, inputs and outputs."""
    known = {name for row in table.layers for name in row.layers}
    found = {}
    for name, path in _stock_paths(model).items():
        layer = model.get_submodule(path)
        if name in known and isinstance(layer, nn.Linear):
            found[name] = (path, (layer.in_features, layer.out_features))
        elif name in known and isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found[name] = (path, (layer.in_channels, layer.out_channels))
    return found


def _stock_paths(model: nn.Module) -> dict[str, str]:
    return {stock_path(model, path): path for path, _ in model.named_modules()}
