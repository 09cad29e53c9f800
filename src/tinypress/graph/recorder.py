"""The dispatch mode under which a network without values runs: it writes every operation down as a node."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tinypress.graph.empty import META, Refused, tensors_by_kind
from tinypress.graph.shapes import meta_call
from tinypress.graph.traced import Kind, Node, Ref


@dataclass(frozen=True)
class Empty:
    """A network without values, the device where its values are, and its tensors by kind and name."""

    network: nn.Module
    device: torch.device
    tensors: tuple[tuple[Kind, str, Tensor], ...]

    def with_network(self, network: nn.Module) -> Empty:
        """Another network without values in its place."""
        return Empty(network, self.device, tuple(tensors_by_kind(network)))


Fits = Callable[[Node, Node], bool]


def same_operation(node: Node, before: Node) -> bool:
    """Whether both are calls of one operator, or neither is a call."""
    return node.op is before.op


def same_node(node: Node, before: Node) -> bool:
    """Whether both are one value that comes about in one way; where they are made does not count."""
    one, other = node.constant, before.constant
    return (
        node.op is before.op
        and (node.name, node.kind, node.tensor, node.shape, node.part_shapes, node.args, node.kwargs)
        == (
            before.name,
            before.kind,
            before.tensor,
            before.shape,
            before.part_shapes,
            before.args,
            before.kwargs,
        )
        and (
            one is other
            or (
                one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)
            )
        )
    )


_MOMENTS = frozenset(("running_mean", "running_var"))


@dataclass(frozen=True)
class _Schema:
    """What an operator says of its arguments."""

    names: tuple[str, ...]
    written: frozenset[str]
    takes_device: bool
    returns: bool
    updates: bool  # its _MOMENTS while it trains, which no schema says

    @staticmethod
    @lru_cache(4096)
    def of(func: Any) -> _Schema:
        schema = func._schema
        written = {a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        names = tuple(a.name for a in schema.arguments)
        updates = schema.name in ("aten::batch_norm", "aten::instance_norm")
        return _Schema(names, frozenset(written), "device" in names, bool(schema.returns), updates)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation. ``names`` is by identity of the tensors, all of which are kept alive.

    Args:
        empty: the network that runs.
        inputs: what it is given, without values.
        running: the paths of the modules whose forward pass runs, from the outermost to the innermost.
        before: the nodes of a run before it; where one of this run does not fit the one at its place, the run ends.
            They say where operations run, too.
        fits: tells whether it does.
    """

    def __init__(
        self,
        empty: Empty,
        inputs: Sequence[Tensor],
        running: list[str],
        before: Sequence[Node] = (),
        fits: Fits = same_operation,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.names: dict[int, str] = {}
        self.outputs: tuple[str, ...] = ()
        self.refused = self.writes = False
        self._device = empty.device
        self._running = running
        self._alive: list[Tensor] = []
        self._before, self._fits = before, fits
        self._own = {tensor.untyped_storage()._cdata for _, _, tensor in empty.tensors}
        for kind, name, tensor in empty.tensors:
            self._value(kind, tensor, tensor=name)
        for x in inputs:
            self._value("input", x)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and torch's compiler takes a second to import."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return self._record(func, args, dict(kwargs or {}))
        except Exception:
            self.refused = True  # also where the network catches it
            raise

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        read = _tensors(args)
        if kwargs:
            read += _tensors(kwargs.values())
        here = [x.is_meta for x in read]
        if read and not any(here):  # made from numbers in the code
            return func(*args, **kwargs)
        schema = _Schema.of(func)
        if schema.written or schema.updates:
            self._note_writes(schema, args, kwargs)
        inputs: list[str] = []
        plain = self._plain(args, inputs), {key: self._plain(value, inputs) for key, value in kwargs.items()}
        if not all(here):
            args = tuple(_on_meta(value) for value in args)
        if kwargs:
            kwargs = {key: _on_meta(value) for key, value in kwargs.items()}
        if schema.takes_device and not read and kwargs.get("device") is None:
            kwargs["device"] = META
        result = meta_call(func, args, kwargs)
        if isinstance(result, Tensor):
            name = self._called(func, *plain, inputs, schema.names, shape=tuple(result.shape))
            self._known(result, name)
            return result
        if result is None:  # a check that returns nothing
            return result
        if not isinstance(result, tuple | list) or not all(isinstance(part, Tensor) for part in result):
            raise Refused
        shapes = tuple(tuple(part.shape) for part in result)
        name = self._called(func, *plain, inputs, schema.names, part_shapes=shapes)
        for place, part in enumerate(result):
            own = self._called(operator.getitem, (Ref(name), place), {}, [name], (), shape=shapes[place])
            self._known(part, own)
        return result

    def _note_writes(self, schema: _Schema, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not schema.returns:
            raise Refused
        given = {**dict(zip(schema.names, args, strict=False)), **kwargs}
        training = given.get("training") or given.get("use_input_stats")
        written = schema.written | _MOMENTS if schema.updates and training else schema.written
        for name in written & given.keys():
            for x in _tensors((given[name],)):
                self.writes |= x.untyped_storage()._cdata in self._own

    def _called(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[str],
        names: tuple[str, ...],
        shape: tuple[int, ...] | None = None,
        part_shapes: tuple[tuple[int, ...], ...] = (),
    ) -> str:
        op = getattr(func, "overloadpacket", func)
        place = len(self.nodes)
        known = place < len(self._before)
        node = Node(
            self._name("getitem" if op is operator.getitem else op.__name__),
            "call",
            op=op,
            args=args,
            kwargs=kwargs,
            inputs=tuple(inputs),
            shape=shape,
            part_shapes=part_shapes,
            module=self._before[place].module if known else self._running[-1],
            parameter_names=names,
        )
        self._add(node)
        return node.name

    def _value(
        self, kind: Kind, x: Tensor, tensor: str | None = None, constant: Tensor | None = None
    ) -> None:
        name = self._name(kind)
        self._add(Node(name, kind, shape=tuple(x.shape), tensor=tensor, constant=constant))
        self._known(x, name)

    def _add(self, node: Node) -> None:
        place = len(self.nodes)
        if self._before and (place >= len(self._before) or not self._fits(node, self._before[place])):
            raise Refused
        self.nodes.append(node)

    def _known(self, x: Tensor, name: str) -> None:
        self.names[id(x)] = name
        self._alive.append(x)

    def _name(self, word: str) -> str:
        return f"{word}_{len(self.nodes)}"

    def _plain(self, value: Any, inputs: list[str]) -> Any:
        """An argument as nodes hold it; the names in it are added to ``inputs``."""
        if isinstance(value, Tensor):
            if id(value) not in self.names:
                if value.is_meta:  # came about where nothing is seen, as by .data
                    raise Refused
                self._value("constant", value, constant=value)
            inputs.append(self.names[id(value)])
            return Ref(inputs[-1])
        if isinstance(value, tuple | list):
            return tuple([part if type(part) in _NUMBERS else self._plain(part, inputs) for part in value])
        return self._device if isinstance(value, torch.device) and value.type == "meta" else value


_NUMBERS = frozenset((int, float, bool, type(None)))  # what most arguments are: looked at first


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """All tensors in arguments, also those in lists."""
    found: list[Tensor] = []
    for value in values:
        if type(value) in _NUMBERS:
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(value)
    return found


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_meta else value.to(META)
    if isinstance(value, tuple | list):
        return [_on_meta(part) for part in value]
    return META if isinstance(value, torch.device) else value
