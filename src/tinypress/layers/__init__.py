"""Layers as plain data. A technique that replaces tensors calls ``fit_attributes``; the archive writes
``structure(model)`` beside the weights and, to open them, loads them into ``rebuild(stock, shapes)``."""

from tinypress.layers.copying import copy_model
from tinypress.layers.depth import Zero, kept_entries, names_now, shorten, stock_name, stock_path
from tinypress.layers.own import config_numbers, own_config, own_widths, put_config, set_width, width_of
from tinypress.layers.pairs import can_be_paired, paired
from tinypress.layers.rebuild import rebuild
from tinypress.layers.tensors import named_tensors
from tinypress.layers.widths import (
    LayerShape,
    Size,
    attributes_of,
    can_resize,
    fit_attributes,
    has_widths,
    owned_tensors,
    parameters_once,
    replace_module,
    structure,
)

__all__ = [
    "LayerShape",
    "Size",
    "Zero",
    "attributes_of",
    "can_be_paired",
    "can_resize",
    "config_numbers",
    "copy_model",
    "fit_attributes",
    "has_widths",
    "kept_entries",
    "named_tensors",
    "names_now",
    "own_config",
    "own_widths",
    "owned_tensors",
    "paired",
    "parameters_once",
    "put_config",
    "rebuild",
    "replace_module",
    "set_width",
    "shorten",
    "stock_name",
    "stock_path",
    "structure",
    "width_of",
]
