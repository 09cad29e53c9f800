"""Trace a network by watching it run twice on the meta device, where tensors have shapes and no values.

``torch.export`` proves what holds for every batch size, which takes it up to a hundred times as long as the network
runs. Here the network runs on its example's shapes and on those of another number of samples. In inference mode a
dispatch mode sees the same ATen operations that export writes, before torch takes them apart. ``two_runs.py`` reads
off both what follows the batch. What cannot be told so, and any operation that wants a value out of a tensor, gives
None: ``trace`` then leaves the network to ``torch.export``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tinypress.graph.empty import META, Refused, as_exporting, emptied, stand_in, tensors_by_kind
from tinypress.graph.forward import tensors_of
from tinypress.graph.shapes import meta_call
from tinypress.graph.traced import Kind, Node, Ref, Traced
from tinypress.graph.two_runs import joined, other_batch


@dataclass(frozen=True)
class Recording:
    """A graph, and whether the forward pass writes into a parameter."""

    traced: Traced
    writes: bool


def record(model: nn.Module, example_inputs: object) -> Recording | None:
    """The graph of ``model(*example_inputs)`` in eval mode, None where ``torch.export`` has to be asked.

    Of one sample the graph is that of two, since a size of 1 hides which dimension follows the batch; the example
    itself is kept as ``given``.
    """
    inputs = _plain_inputs(example_inputs)
    if inputs is None:
        return None
    batch = next(len(x) for x in inputs if x.dim())
    batches = (batch, other_batch(batch))
    try:
        network, device, tensors = emptied(model, inputs)
        with as_exporting():
            with _watched(network) as running:
                shell = _Shell(network, device, tensors, running)
                one = _run(shell, [stand_in(x, batches[0]) for x in inputs])
            other = _run(shell, [stand_in(x, batches[1]) for x in inputs], one.nodes)
        nodes = joined(one.nodes, other.nodes, batches, max(batch, 2))
    except Exception:  # whatever a network says to tensors without values
        return None
    if one.outputs != other.outputs:
        return None
    example = inputs if batch > 1 else tuple(torch.cat([x, x]) if x.dim() else x for x in inputs)
    names = tuple(node.name for node in nodes if node.kind == "input")
    return Recording(Traced(nodes, names, one.outputs, example, inputs, True), one.writes)


def once(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[tuple[object, ...], ...] | None:
    """What a network without values computes of ``inputs``: every operation with its arguments, and the outputs; None
    where it cannot be recorded. Two networks of equal tensors for which this is the same compute the same."""
    tensors = tuple(tensors_by_kind(network))
    try:
        with as_exporting():
            shell = _Shell(network, torch.device("cpu"), tensors, [""])
            run = _run(shell, [stand_in(x, len(x) if x.dim() else 0) for x in inputs])
    except Exception:  # whatever a network says to tensors without values
        return None
    calls = []
    for node in run.nodes:
        constant = None if node.constant is None else (node.constant.dtype, node.constant.tolist())
        calls.append((node.op, node.args, tuple(node.kwargs.items()), node.shape, node.tensor, constant))
    return (*calls, run.outputs)


def record_like(model: nn.Module, traced: Traced) -> tuple[Node, ...] | None:
    """The nodes of ``model`` on the example of ``traced``: the same operations on the sizes that ``model`` makes; None
    where it runs others, or cannot be recorded."""
    try:
        with as_exporting():
            shell = _Shell(*emptied(model, traced.example), [""])
            run = _run(shell, [stand_in(x, len(x) if x.dim() else 0) for x in traced.example], traced.nodes)
    except Exception:  # whatever a network says to tensors without values
        return None
    return tuple(run.nodes) if len(run.nodes) == len(traced.nodes) else None


def _plain_inputs(example_inputs: object) -> tuple[Tensor, ...] | None:
    """The example, where it is tensors that hold equally many samples."""
    if not isinstance(example_inputs, tuple | list) or not all(type(x) is Tensor for x in example_inputs):
        return None
    batches = {len(x) for x in example_inputs if x.dim()}
    return tuple(example_inputs) if len(batches) == 1 and 0 not in batches else None


@dataclass(frozen=True)
class _Shell:
    """A copy of a network without values, where its values are, and its tensors by kind and name. ``running`` holds
    the paths of the modules whose forward pass runs, from the outermost to the innermost; of a run that has one before
    it, that says where operations run."""

    network: nn.Module
    device: torch.device
    tensors: tuple[tuple[Kind, str, Tensor], ...]
    running: list[str]


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules whose forward pass runs; hooks of ``network`` keep it up to date."""
    running, hooks = [""], []

    def watch(path: str, module: nn.Module) -> None:
        def enter(*_: object) -> None:
            running.append(path)

        def leave(*_: object) -> None:
            running.pop()

        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(leave, always_call=True))

    for path, module in network.named_modules():
        watch(path, module)
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def _run(shell: _Shell, inputs: list[Tensor], before: Sequence[Node] = ()) -> _Recorder:
    recorder = _Recorder(shell, inputs, before)
    with torch.inference_mode(), recorder:
        returned = tensors_of(shell.network(*inputs))
    if recorder.refused or not returned:
        raise Refused
    recorder.outputs = tuple(recorder.names[id(x)] for x in returned)
    return recorder


@dataclass(frozen=True)
class _Schema:
    """What an operator says of its arguments."""

    names: tuple[str, ...]
    written: frozenset[str]
    takes_device: bool
    returns: bool

    @staticmethod
    @lru_cache(4096)
    def of(func: Any) -> _Schema:
        schema = func._schema
        written = {a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        names = tuple(a.name for a in schema.arguments)
        return _Schema(names, frozenset(written), "device" in names, bool(schema.returns))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation. ``names`` is by identity of the tensors, all of which are kept alive; a run that
    calls another operation than the run ``before`` ends there."""

    def __init__(self, shell: _Shell, inputs: list[Tensor], before: Sequence[Node]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.names: dict[int, str] = {}
        self.outputs: tuple[str, ...] = ()
        self.refused = self.writes = False
        self._device = shell.device
        self._running = shell.running
        self._alive: list[Tensor] = []
        self._before = before
        self._parameters = {
            tensor.untyped_storage()._cdata for kind, _, tensor in shell.tensors if kind == "parameter"
        }
        for kind, name, tensor in shell.tensors:
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
        if schema.written:
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
        for name in schema.written & given.keys():
            for x in _tensors((given[name],)):
                self.writes |= x.untyped_storage()._cdata in self._parameters

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
        if self._before and (place >= len(self._before) or self._before[place].op is not op):
            raise Refused
        name = self._name("getitem" if op is operator.getitem else op.__name__)
        self.nodes.append(
            Node(
                name,
                "call",
                op=op,
                args=args,
                kwargs=kwargs,
                inputs=tuple(inputs),
                shape=shape,
                part_shapes=part_shapes,
                module=self._before[place].module if self._before else self._running[-1],
                parameter_names=names,
            )
        )
        return name

    def _value(
        self, kind: Kind, x: Tensor, tensor: str | None = None, constant: Tensor | None = None
    ) -> None:
        name = self._name(kind)
        self.nodes.append(Node(name, kind, shape=tuple(x.shape), tensor=tensor, constant=constant))
        self._known(x, name)

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
            return tuple([self._plain(part, inputs) for part in value])
        return self._device if isinstance(value, torch.device) and value.type == "meta" else value


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """All tensors in arguments, also those in lists."""
    found: list[Tensor] = []
    for value in values:
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
