"""Which layers round their input at run time, and what that does not bring in ONNX Runtime.

A layer needs no calibration then: its input's range is looked up each time. A Linear and an LSTM have fast kernels for
it, a convolution has a slow one, a GRU has none and only stores its weights in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from tinypress.errors import InputError
from tinypress.facts import Note
from tinypress.quantize.by_layer import Bits
from tinypress.quantize.recurrent import RECURRENT, has_plain_state

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ROUNDING = (nn.Linear, *_CONVOLUTIONS, nn.MultiheadAttention, *RECURRENT)
_ONLY_STORED = (nn.GRU, nn.RNN)


def at_run_time(model: nn.Module) -> frozenset[str]:
    """Names of all layers that could round their input at run time."""
    return frozenset(name for name, layer in model.named_modules() if isinstance(layer, ROUNDING))


def fitting(
    call: str,
    model: nn.Module,
    named: Collection[str],
    kept: Collection[str],
    bits: Bits,
    scheme: str,
    every: bool,
) -> frozenset[str]:
    """Those of the layers ``named`` that have 8 symmetric bits and weights of their own; all must, unless ``every``.

    Raises:
        InputError: a layer cannot, or bits and scheme are of weights alone.
    """
    if not named:
        return frozenset()
    if scheme != "symmetric" or (isinstance(bits, int) and bits != 8):
        raise InputError(
            call,
            "integers that are made at run time meet weights of 8 symmetric bits",
            "Leave bits and scheme as they are",
        )
    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    found = set()
    for name in sorted(named):
        reason = _reason(model.get_submodule(name), name, kept, bits, tables)
        if reason is None:
            found.add(name)
        elif not every:
            raise InputError(call, f"dynamic: {name!r} {reason}", "Leave it out")
    return frozenset(found)


def _reason(
    layer: nn.Module, name: str, kept: Collection[str], bits: Bits, tables: Collection[int]
) -> str | None:
    if name in kept:
        return "stays float"
    if isinstance(layer, nn.RNNBase):
        return None if has_plain_state(layer) else "has a projected state"
    if not isinstance(bits, int) and bits.get(name, 8) != 8:
        return "has other bits"
    if isinstance(layer, nn.MultiheadAttention):
        return (
            None
            if layer.in_proj_weight is not None
            else "has weights of its own for queries, keys and values"
        )
    return "has the weight of a table" if id(getattr(layer, "weight", None)) in tables else None


def rounding(model: nn.Module, weights: Collection[str], layers: Collection[str]) -> frozenset[str]:
    """Names of the ``weights`` whose layer, one of ``layers``, rounds its input."""
    found = set()
    for weight in weights:
        name = weight.rpartition(".")[0]
        if name in layers and not isinstance(model.get_submodule(name), _ONLY_STORED):
            found.add(weight)
    return frozenset(found)


def what_it_costs(model: nn.Module, layers: Collection[str]) -> list[Note]:
    """Notes on the ``layers`` to which rounding at run time does not bring what may be expected."""
    named = [(name, model.get_submodule(name)) for name in sorted(layers)]
    notes = []
    convolutions = [name for name, layer in named if isinstance(layer, _CONVOLUTIONS)]
    if convolutions:
        text = (
            "ONNX Runtime computes a convolution that rounds its input at run time several times slower than in "
            f"float: {', '.join(convolutions)}. Calibration samples give it a fast kernel, keep leaves it float"
        )
        notes.append(Note("TP215", "warning", None, text))
    for name, layer in named:
        if isinstance(layer, _ONLY_STORED):
            text = (
                f"{type(layer).__name__} has no integer kernel: its weights are stored in 8 bits and become floats "
                "when the network runs. Bytes are saved, time is not"
            )
            notes.append(Note("TP216", "note", name, text))
    return notes
