"""The traced graph as frozen data. An operation is torch's own operator object, so that rules are looked up
by it; everything else is names, numbers and tuples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

Kind = Literal["input", "parameter", "buffer", "constant", "call"]


@dataclass(frozen=True)
class Ref:
    """An argument that is the value of another node."""

    node: str


class FreeSize(int):
    """A size in a call's arguments that follows the batch: its value on the traced example, ``each`` per sample."""

    each: int

    @classmethod
    def of(cls, value: int, each: int) -> FreeSize:
        """``value`` on the traced example, ``each`` for every sample."""
        size = cls(value)
        size.each = each
        return size


@dataclass(frozen=True)
class Node:
    """One value of the graph and how it comes about.

    ``op`` is the operator that a call runs (``torch.ops.aten.conv2d``: the overload is dropped), None for the
    rest. ``args`` and ``kwargs`` are those of the call, with a ``Ref`` wherever a value is used; ``inputs``
    lists the values used, in order, each as often as it is used. ``shape`` is the shape on the traced example,
    None if the value is no single tensor; ``part_shapes`` are those of a list of tensors. ``batch_dims`` are
    the dimensions in ``shape`` that follow the batch size. ``module`` is the path of the module whose forward
    made the call. ``tensor`` is the full name of a parameter or buffer; a shared one goes by its first name.
    ``constant`` is a tensor that the exporter lifted out of the code.
    """

    name: str
    kind: Kind
    op: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    part_shapes: tuple[tuple[int, ...] | None, ...] = ()
    batch_dims: tuple[int, ...] = ()
    module: str = ""
    tensor: str | None = None
    constant: Tensor | None = None
    parameter_names: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How messages call the operation, e.g. ``aten.conv2d``."""
        return getattr(self.op, "_qualified_op_name", getattr(self.op, "__name__", self.kind)).replace(
            "::", "."
        )


@dataclass(frozen=True)
class Traced:
    """A graph in the order of execution. ``outputs`` names the tensors that the network returns, and ``example``
    is what it was traced on: of one sample that came in, two. ``given`` is the example as it came, on which the graph
    computes what the network computes as well; where it does not, it is ``example``. ``recorded`` tells that it
    was read off runs without values, so that another network can be held against it (``record_once``), and ``writes``
    whether operations may write into parameters or buffers."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...] = ()
    given: tuple[Tensor, ...] = ()
    recorded: bool = False
    writes: bool = True

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def by_name(self) -> dict[str, Node]:
        """Every node by its name."""
        return {node.name: node for node in self.nodes}

    def at(self, inputs: Sequence[Tensor]) -> Traced:
        """The graph for as many samples as ``inputs`` hold, where the sizes in it follow the batch."""
        batch = next((len(x) for x in inputs if x.dim()), 0)
        if batch not in self._by_batch:
            nodes = tuple(
                replace(node, args=_sized(node.args, batch), kwargs=_sized(dict(node.kwargs), batch))
                if node.kind == "call"
                else node
                for node in self.nodes
            )
            self._by_batch[batch] = replace(self, nodes=nodes)
        return self._by_batch[batch]

    @cached_property
    def _by_batch(self) -> dict[int, Traced]:
        return {next((len(x) for x in self.example if x.dim()), 0): self}

    def users(self) -> dict[str, tuple[str, ...]]:
        """For each value the names of the calls that use it, once each."""
        users: dict[str, dict[str, None]] = {node.name: {} for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                users[name][node.name] = None
        return {name: tuple(calls) for name, calls in users.items()}


def _sized(value: Any, batch: int) -> Any:
    if isinstance(value, FreeSize):
        return value.each * batch
    if isinstance(value, tuple):
        return tuple(_sized(part, batch) for part in value)
    return {key: _sized(part, batch) for key, part in value.items()} if isinstance(value, dict) else value


def arguments(node: Node) -> dict[str, Any]:
    """The call's arguments by the names in the operator's schema, those not given left out."""
    return {**dict(zip(node.parameter_names, node.args, strict=False)), **node.kwargs}
