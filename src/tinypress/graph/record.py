"""Trace a network by watching it run twice on the meta device, where tensors have shapes and no values.

``torch.export`` proves what holds for every batch size, which takes it up to a hundred times as long as the network
runs. Here the network runs on its example's shapes and on those of another number of samples. In inference mode a
dispatch mode sees the same ATen operations that export writes, before torch takes them apart. ``two_runs.py`` reads
off both what follows the batch. What cannot be told so, and any operation that wants a value out of a tensor, gives
None: ``trace`` then leaves the network to ``torch.export``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.graph.empty import Refused, as_exporting, emptied, stand_in
from tinypress.graph.forward import tensors_of
from tinypress.graph.recorder import Empty, Fits, Recorder, same_node, same_operation
from tinypress.graph.traced import Node, Traced
from tinypress.graph.two_runs import joined, other_batch


def record(model: nn.Module, example_inputs: object) -> Traced | None:
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
        empty = Empty(*emptied(model, inputs))
        with as_exporting():
            with _watched(empty.network) as running:
                one = _run(empty, [stand_in(x, batches[0]) for x in inputs], running)
            other = _run(empty, [stand_in(x, batches[1]) for x in inputs], before=one.nodes)
        nodes = joined(one.nodes, other.nodes, batches, max(batch, 2))
    except Exception:  # whatever a network says to tensors without values
        return None
    if one.outputs != other.outputs:
        return None
    example = inputs if batch > 1 else tuple(torch.cat([x, x]) if x.dim() else x for x in inputs)
    names = tuple(node.name for node in nodes if node.kind == "input")
    return Traced(nodes, names, one.outputs, example, inputs, recorded=True, writes=one.writes)


@dataclass(frozen=True)
class Run:
    """What a network without values does with ``inputs``."""

    empty: Empty
    inputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def is_of(self, network: nn.Module) -> bool:
        """Whether ``network``, without values, does the same: it ends at the first operation that is another. Two
        networks of equal tensors that do the same compute the same."""
        empty = self.empty.with_network(network)
        with suppress(Exception), as_exporting():  # whatever a network says to tensors without values
            run = _run(empty, self.inputs, before=self.nodes, fits=same_node)
            return len(run.nodes) == len(self.nodes) and run.outputs == self.outputs
        return False


def record_once(model: nn.Module, inputs: tuple[Tensor, ...], like: Sequence[Node] = ()) -> Run | None:
    """What ``model`` does with ``inputs``; None where it cannot be recorded, or where its operations are not those of
    ``like``."""
    given = tuple(stand_in(x, len(x) if x.dim() else 0) for x in inputs)
    try:
        with as_exporting():
            empty = Empty(*emptied(model, inputs))
            run = _run(empty, given, before=like)
    except Exception:  # whatever a network says to tensors without values
        return None
    return Run(empty, given, tuple(run.nodes), run.outputs) if len(run.nodes) >= len(like) else None


def _plain_inputs(example_inputs: object) -> tuple[Tensor, ...] | None:
    """The example, where it is tensors that hold equally many samples."""
    if not isinstance(example_inputs, tuple | list) or not all(type(x) is Tensor for x in example_inputs):
        return None
    batches = {len(x) for x in example_inputs if x.dim()}
    return tuple(example_inputs) if len(batches) == 1 and 0 not in batches else None


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules that run, from the outermost to the innermost.

    All modules are watched where they are called, as torch.fx does it: a hook on each takes longer to set than it to
    run, and none is told, while networks are exported, of a module that fails.
    """
    paths = {id(module): path for path, module in network.named_modules()}
    running, own = [""], threading.get_ident()
    call = nn.Module.__call__

    def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != own:
            return call(module, *args, **kwargs)
        running.append(paths.get(id(module), running[-1]))
        try:
            return call(module, *args, **kwargs)
        finally:
            running.pop()

    nn.Module.__call__ = watched  # type: ignore[method-assign]
    try:
        yield running
    finally:
        nn.Module.__call__ = call  # type: ignore[method-assign]


def _run(
    empty: Empty,
    inputs: Sequence[Tensor],
    running: list[str] | None = None,
    before: Sequence[Node] = (),
    fits: Fits = same_operation,
) -> Recorder:
    recorder = Recorder(empty, inputs, running or [""], before, fits)
    with torch.inference_mode(), recorder:
        returned = tensors_of(empty.network(*inputs))
    if recorder.refused or not returned:
        raise Refused
    recorder.outputs = tuple(recorder.names[id(x)] for x in returned)
    return recorder
