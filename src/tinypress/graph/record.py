"""Trace a network by watching it run twice on the meta device, where tensors have shapes and no values.

``torch.export`` proves what holds for every batch size, which takes it up to a hundred times as long as the network
runs. Here the network runs on its example's shapes and on those of twice as many samples. In inference mode a dispatch
mode sees the same ATen operations that export writes, before torch takes them apart. A size that doubles with the
batch follows it; all else has to be equal in both runs. What cannot be told so, and any operation that wants a value
out of a tensor, gives None: ``trace`` then leaves the network to ``torch.export``.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tinypress.graph.forward import tensors_of
from tinypress.graph.shapes import meta_call
from tinypress.graph.traced import FreeSize, Kind, Node, Ref, Traced

_META = torch.device("meta")


class _Refused(Exception):
    """The network cannot be recorded."""


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
    try:
        shell, device = _shell(model, inputs)
        sizes = (1, 2) if batch > 1 else (2, 1)
        with _as_exporting(shell):
            runs = [_run(shell, [_stand_in(x, times) for x in inputs], device) for times in sizes]
        per_sample = (batch * sizes[0], batch * sizes[1])
        nodes = tuple(
            _joined(one, other, per_sample) for one, other in zip(*(r.nodes for r in runs), strict=True)
        )
    except Exception:  # whatever a network says to tensors without values
        return None
    if runs[0].outputs != runs[1].outputs:
        return None
    example = inputs if batch > 1 else tuple(torch.cat([x, x]) if x.dim() else x for x in inputs)
    names = tuple(node.name for node in nodes if node.kind == "input")
    return Recording(Traced(nodes, names, runs[0].outputs, example, inputs), runs[0].writes)


def _plain_inputs(example_inputs: object) -> tuple[Tensor, ...] | None:
    """The example, where it is tensors that hold equally many samples."""
    if not isinstance(example_inputs, tuple | list) or not all(type(x) is Tensor for x in example_inputs):
        return None
    batches = {len(x) for x in example_inputs if x.dim()}
    return tuple(example_inputs) if len(batches) == 1 and 0 not in batches else None


def _shell(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, torch.device]:
    """A copy of the network without values, and where its values are."""
    memo: dict[int, Any] = {}
    devices = {x.device for x in inputs}
    for tensor in (*model.parameters(), *model.buffers()):
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
            raise _Refused
        devices.add(tensor.device)
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)
        memo[id(tensor)] = (
            nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
        )
    if len(devices) != 1:
        raise _Refused
    return copy.deepcopy(model, memo).eval(), devices.pop()


def _stand_in(x: Tensor, times: int) -> Tensor:
    shape = (len(x) * times, *x.shape[1:]) if x.dim() else ()
    return torch.empty(shape, dtype=x.dtype, device=_META)


@contextmanager
def _as_exporting(shell: nn.Module) -> Iterator[None]:
    """Networks that ask whether they are being compiled take the branches that they take under ``torch.export``."""
    fast, flags = torch.backends.mha.get_fastpath_enabled(), ("_is_compiling_flag", "_is_exporting_flag")
    before = [getattr(torch.compiler, flag) for flag in flags]
    try:
        # one operation for a whole layer says nothing of what is in it
        torch.backends.mha.set_fastpath_enabled(False)
        for flag in flags:
            setattr(torch.compiler, flag, True)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for flag, value in zip(flags, before, strict=True):
            setattr(torch.compiler, flag, value)


def _run(shell: nn.Module, inputs: list[Tensor], device: torch.device) -> _Recorder:
    recorder = _Recorder(shell, inputs, device)
    with ExitStack() as stack:
        for path, module in shell.named_modules():
            enter, leave = recorder.hooks(path)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(recorder)
        returned = tensors_of(shell(*inputs))
    if recorder.refused or not returned:
        raise _Refused
    recorder.outputs = tuple(recorder.names[id(x)] for x in returned)
    return recorder


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation. ``names`` is by identity of the tensors, all of which are kept alive."""

    def __init__(self, shell: nn.Module, inputs: list[Tensor], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.names: dict[int, str] = {}
        self.outputs: tuple[str, ...] = ()
        self.refused = self.writes = False
        self._device = device
        self._alive: list[Tensor] = []
        self._modules = [""]
        self._parameters = {p.untyped_storage()._cdata for p in shell.parameters()}
        for kind, named in (("parameter", shell.named_parameters()), ("buffer", shell.named_buffers())):
            for name, tensor in named:
                self._value(kind, tensor, tensor=name)  # type: ignore[arg-type]
        for x in inputs:
            self._value("input", x)

    def hooks(self, path: str) -> tuple[Callable[..., None], Callable[..., None]]:
        """What to call before and after the forward pass of the module at ``path``."""

        def enter(*_: object) -> None:
            self._modules.append(path)

        def leave(*_: object) -> None:
            self._modules.pop()

        return enter, leave

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return self._record(func, args, dict(kwargs or {}))
        except Exception:
            self.refused = True  # also where the network catches it
            raise

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        read = list(_tensors((args, kwargs)))
        schema = func._schema
        takes_device = [a for a in schema.arguments if a.name == "device"]
        if read and not any(x.is_meta for x in read):  # made from numbers in the code
            return func(*args, **kwargs)
        written = [
            x
            for place, given in _placed(schema, args, kwargs)
            if place.alias_info is not None and place.alias_info.is_write
            for x in _tensors(given)
        ]
        if written and not schema.returns:
            raise _Refused
        self.writes |= any(x.untyped_storage()._cdata in self._parameters for x in written)
        node_args, node_kwargs = self._plain(args), {key: self._plain(value) for key, value in kwargs.items()}
        on_meta = {key: _on_meta(value) for key, value in kwargs.items()}
        if takes_device and not read and on_meta.get("device") is None:
            on_meta["device"] = _META
        result = meta_call(func, tuple(_on_meta(value) for value in args), on_meta)
        parts = [result] if isinstance(result, Tensor) else result
        if not isinstance(parts, tuple | list) or not all(isinstance(part, Tensor) for part in parts):
            if result is None:  # a check that returns nothing
                return result
            raise _Refused
        name = self._name(func.overloadpacket.__name__)
        several = not isinstance(result, Tensor)
        self.nodes.append(
            Node(
                name,
                "call",
                op=func.overloadpacket,
                args=node_args,
                kwargs=node_kwargs,
                inputs=tuple(_refs((node_args, node_kwargs))),
                shape=None if several else tuple(result.shape),
                part_shapes=tuple(tuple(part.shape) for part in parts) if several else (),
                module=self._modules[-1],
                parameter_names=tuple(a.name for a in schema.arguments),
            )
        )
        if not several:
            self._known(result, name)
        for place, part in enumerate(parts if several else ()):
            own = self._name("getitem")
            self.nodes.append(
                Node(
                    own,
                    "call",
                    op=operator.getitem,
                    args=(Ref(name), place),
                    inputs=(name,),
                    shape=tuple(part.shape),
                    module=self._modules[-1],
                )
            )
            self._known(part, own)
        return result

    def _value(self, kind: Kind, x: Tensor, tensor: str | None = None, constant: Tensor | None = None) -> str:
        name = self._name(kind)
        self.nodes.append(Node(name, kind, shape=tuple(x.shape), tensor=tensor, constant=constant))
        self._known(x, name)
        return name

    def _known(self, x: Tensor, name: str) -> None:
        self.names[id(x)] = name
        self._alive.append(x)

    def _name(self, word: str) -> str:
        return f"{word}_{len(self.nodes)}"

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in self.names:
                if value.is_meta:  # came about where nothing is seen, as by .data
                    raise _Refused
                self._value("constant", value, constant=value)
            return Ref(self.names[id(value)])
        if isinstance(value, tuple | list):
            return tuple(self._plain(part) for part in value)
        return self._device if isinstance(value, torch.device) and value.type == "meta" else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, Ref):
        yield value.node
    elif isinstance(value, tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _refs(part)


def _placed(schema: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The arguments given, each with its place in the schema."""
    yield from zip(schema.arguments, args, strict=False)
    yield from ((place, kwargs[place.name]) for place in schema.arguments if place.name in kwargs)


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_meta else value.to(_META)
    if isinstance(value, tuple | list):
        return [_on_meta(part) for part in value]
    return _META if isinstance(value, torch.device) else value


def _joined(one: Node, other: Node, batches: tuple[int, int]) -> Node:
    """What holds of both runs."""
    if (one.kind, one.op, one.inputs, one.module, one.tensor) != (
        other.kind, other.op, other.inputs, other.module, other.tensor
    ):  # fmt: skip
        raise _Refused
    if (one.constant is None) != (other.constant is None) or (
        one.constant is not None and not torch.equal(one.constant, other.constant)  # type: ignore[arg-type]
    ):
        raise _Refused
    shape = _sizes(one.shape or (), other.shape or (), batches)
    for part, part_of_other in zip(one.part_shapes, other.part_shapes, strict=True):
        _sizes(part or (), part_of_other or (), batches)
    return replace(
        one,
        args=_both(one.args, other.args, batches),
        kwargs=_both(dict(one.kwargs), dict(other.kwargs), batches),
        batch_dims=tuple(place for place, size in enumerate(shape) if isinstance(size, FreeSize)),
    )


def _sizes(one: tuple[int, ...], other: tuple[int, ...], batches: tuple[int, int]) -> tuple[int, ...]:
    return tuple(_both(a, b, batches) for a, b in zip(one, other, strict=True))


def _both(one: Any, other: Any, batches: tuple[int, int]) -> Any:
    if type(one) is not type(other):
        raise _Refused
    if isinstance(one, tuple):
        return tuple(_both(a, b, batches) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        if one.keys() != other.keys():
            raise _Refused
        return {key: _both(value, other[key], batches) for key, value in one.items()}
    if one == other or (one != one and other != other):  # NaN as a number to fill in
        return one
    if type(one) is int and one * batches[1] == other * batches[0] and one % batches[0] == 0:
        return FreeSize.of(one, one // batches[0])
    raise _Refused
