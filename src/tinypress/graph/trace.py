"""Trace a network once into its ATen graph as plain data: recorded as it runs, or else written by ``torch.export``.

Both run on a copy in eval mode, so the network that came in is never touched, and all that is said about batch norm
and dropout is what holds when the network is used.
"""

from __future__ import annotations

import io
import linecache
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from tinypress.errors import ModelError
from tinypress.graph.forward import check_example, check_inputs, describe, first_line, forward_eval
from tinypress.graph.record import record
from tinypress.graph.traced import Kind, Node, Ref, Traced
from tinypress.layers import copy_model


def trace(model: nn.Module, example_inputs: tuple[Tensor, ...], *, run: bool = True) -> Traced:
    """The graph of ``model(*example_inputs)`` in eval mode.

    The first dimension of every input is taken as the batch and left free where the network allows it. Of an
    example of one sample the graph is that of two, because a batch of 1 would be written into it.

    Args:
        model: the network; not changed.
        example_inputs: one tensor [B, ...] per argument of ``forward``.
        run: False where the caller runs the graph on the example anyway, and calls ``check_runs`` if that fails.

    Raises:
        InputError: ``example_inputs`` is not a tuple of tensors.
        ModelError: the network does not run on the example, returns NaN, or cannot be traced.
    """
    recorded = record(model, example_inputs)
    if recorded is not None and not run:
        check_inputs(_call(model, example_inputs), model, example_inputs)
        return recorded
    copied = check_runs(model, example_inputs, share=recorded is not None and not recorded.writes)
    if recorded is not None:
        return recorded
    return exported(_call(model, example_inputs), copied, tuple(example_inputs))


def check_runs(model: nn.Module, example_inputs: tuple[Tensor, ...], *, share: bool = False) -> nn.Module:
    """Run a copy of ``model`` in eval mode on its example, and return the copy.

    Args:
        share: let the copy share the parameters, which the forward pass must not write then.

    Raises:
        InputError: ``example_inputs`` is not a tuple of tensors.
        ModelError: the network does not run on the example, or returns NaN.
    """
    copied = copy_model(model, share=share).eval()
    check_example(_call(model, example_inputs), copied, example_inputs)
    return copied


def _call(model: nn.Module, example_inputs: object) -> str:
    return f"trace({type(model).__name__}, example_inputs={_shapes(example_inputs)})"


def exported(call: str, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Traced:
    """The graph as ``torch.export`` writes it.

    Raises:
        ModelError: the network cannot be exported.
    """
    inputs = _two_samples(model, example_inputs)
    return _plain(call, model, _export(call, model, inputs), inputs)


def _shapes(example_inputs: object) -> str:
    if isinstance(example_inputs, tuple | list) and all(isinstance(x, Tensor) for x in example_inputs):
        return describe(tuple(example_inputs))
    return type(example_inputs).__name__


def _two_samples(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if any(x.dim() == 0 or len(x) != 1 for x in inputs):
        return inputs
    doubled = tuple(torch.cat([x, x]) for x in inputs)
    try:
        forward_eval(model, doubled)
    except Exception:  # a network that is made for one sample only
        return inputs
    return doubled


def _export(call: str, model: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    free = tuple({0: Dim.AUTO} if x.dim() else None for x in inputs)
    # Some networks use the batch size in a way that cannot stay symbolic: those are traced with a fixed one.
    for dynamic_shapes in (free, None):
        try:
            with _quiet(), torch.no_grad():
                return torch.export.export(model, inputs, dynamic_shapes=dynamic_shapes, strict=False)
        except Exception as raised:
            error = raised
    raise ModelError(
        call,
        f"torch.export cannot trace the network{_place(error)} ({type(error).__name__}: {first_line(error)})",
        "Keep what forward() does independent of the values in its tensors: no if, loop or .item()",
    ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The forward pass before has shown the user's own warnings; these are the exporter's."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it prints half a graph on failure
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _place(error: BaseException) -> str:
    """Where in the user's code the exporter stopped: the innermost frame that is neither torch's nor ours."""
    outside = (Path(torch.__file__).parent, Path(__file__).parent)
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if path.is_file() and not any(path.is_relative_to(folder) for folder in outside):
            code = linecache.getline(str(path), line).strip()
            owner = frame.f_locals.get("self")
            inside = f" of {type(owner).__name__}" if isinstance(owner, nn.Module) else ""
            return f" at {path.name}:{line} in {frame.f_code.co_name}{inside}: `{code}`"
    return ""


_KINDS: Mapping[InputKind, Kind] = {
    InputKind.USER_INPUT: "input",
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
}


def _plain(call: str, model: nn.Module, program: ExportedProgram, example: tuple[Tensor, ...]) -> Traced:
    signature = program.graph_signature
    specs = {getattr(spec.arg, "name", ""): spec for spec in signature.input_specs}
    first_names = _first_names(model)
    nodes: list[Node] = []
    for item in program.graph.nodes:
        if _is_unsized(item.meta.get("val")):
            raise ModelError(
                call,
                f"the shape of what {item.target} returns in {_module(item) or 'the network'!r} depends on the "
                "values in its tensors",
                "Replace it by something of a fixed shape, such as a mask that is multiplied",
            )
        shape, batch_dims = _shape(item.meta.get("val"))
        if item.op == "placeholder":
            spec = specs[item.name]
            kind = _KINDS.get(spec.kind, "constant")
            tensor = first_names.get(str(spec.target)) if kind in ("parameter", "buffer") else None
            lifted = program.constants.get(str(spec.target)) if kind != "input" and tensor is None else None
            constant = lifted if isinstance(lifted, Tensor) else None
            nodes.append(
                Node(item.name, kind, shape=shape, batch_dims=batch_dims, tensor=tensor, constant=constant)
            )
        elif item.op == "get_attr":
            nodes.append(Node(item.name, "constant", shape=shape))
        elif item.op == "call_function":
            schema = getattr(item.target, "_schema", None)
            nodes.append(
                Node(
                    item.name,
                    "call",
                    op=getattr(item.target, "overloadpacket", item.target),
                    args=_argument(item.args),
                    kwargs={key: _argument(value) for key, value in item.kwargs.items()},
                    inputs=tuple(_uses((item.args, item.kwargs))),
                    shape=shape,
                    part_shapes=_part_shapes(item.meta.get("val")),
                    batch_dims=batch_dims,
                    module=_module(item),
                    parameter_names=tuple(a.name for a in schema.arguments) if schema else (),
                )
            )
    outputs = [
        str(getattr(spec.arg, "name", ""))
        for spec in signature.output_specs
        if spec.kind == OutputKind.USER_OUTPUT
    ]
    known = {node.name for node in nodes}
    inputs = tuple(node.name for node in nodes if node.kind == "input")
    return Traced(tuple(nodes), inputs, tuple(name for name in outputs if name in known), example, example)


def _first_names(model: nn.Module) -> dict[str, str]:
    """From every name of a parameter or buffer to its first one."""
    first: dict[int, str] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def _shape(value: object) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    if not isinstance(value, Tensor):
        return None, ()
    sizes: list[Any] = list(value.shape)
    # A size that began free and was then bound to one number by the network is a SymInt still.
    free = [isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None for size in sizes]
    batch_dims = tuple(i for i, is_free in enumerate(free) if is_free)
    return tuple(s.node.hint if isinstance(s, torch.SymInt) else int(s) for s in sizes), batch_dims


def _is_unsized(value: object) -> bool:
    sizes: list[Any] = list(value.shape) if isinstance(value, Tensor) else []
    return any(isinstance(size, torch.SymInt) and size.node.hint is None for size in sizes)


def _part_shapes(value: object) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(_shape(part)[0] for part in value) if isinstance(value, tuple | list) else ()


def _argument(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return Ref(value.name)
    if isinstance(value, tuple | list):
        return tuple(_argument(part) for part in value)
    return value


def _uses(value: Any) -> Iterator[str]:
    if isinstance(value, fx.Node):
        yield value.name
    elif isinstance(value, Mapping):
        yield from _uses(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _uses(part)


def _module(item: fx.Node) -> str:
    stack = item.meta.get("nn_module_stack") or {}
    path = next((entry[0] for entry in reversed(list(stack.values()))), "")
    # A module that is called again is numbered "name@1".
    return "" if path.startswith("_empty_nn_module_stack") else path.split("@")[0]
