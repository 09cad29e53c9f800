"""What a network may cost at most, and what it costs now or with some of its neurons gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.graph import Traced, trace
from tinypress.measure.compute import count_macs, macs_of
from tinypress.measure.latency_table import LatencyTable
from tinypress.shrink.budget import Budget, check_positive, limit_of
from tinypress.shrink.costs import Costing, costing
from tinypress.shrink.groups import Survey
from tinypress.shrink.timed import check_table, latency_of, timed_layers

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
        return latency_of(traced, found, model, self.table)


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
        check_table(call, model, table)
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
