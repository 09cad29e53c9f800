"""What a network takes once some of its neurons are gone, as a table of its layers' times predicts it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.graph import Traced
from tinypress.layers import stock_path
from tinypress.measure.latency_table import LatencyTable
from tinypress.shrink.flow import widths_left
from tinypress.shrink.groups import Survey


def latency_of(
    traced: Traced, found: Survey, model: nn.Module, table: LatencyTable
) -> Callable[[NDArray[np.bool_]], float]:
    """From the labels of ``found`` that are gone to milliseconds of one sample."""
    value_of = {node.tensor: node.name for node in traced if node.tensor is not None}
    first = {id(tensor): name for name, tensor in model.named_parameters()}
    layers = timed_layers(model, table)

    def milliseconds(gone: NDArray[np.bool_]) -> float:
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

    return milliseconds


def check_table(call: str, model: nn.Module, table: object) -> None:
    """Check that the table is of this network.

    Raises:
        InputError: it is no table, or names a layer that the network has not.
    """
    if not isinstance(table, LatencyTable):
        raise InputError(call, f"table is a {type(table).__name__}", "Give table=read_latency_table(path)")
    missing = sorted({name for row in table.layers for name in row.layers} - set(_stock_paths(model)))
    if missing:
        raise InputError(
            call, f"the table has the layer {missing[0][:80]!r}, the network has not", "Measure its own table"
        )


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
