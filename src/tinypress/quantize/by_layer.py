"""Bits for every layer alike, or for each layer by its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from tinypress.errors import InputError
from tinypress.quantize.rows import check_settings
from tinypress.quantize.shared import choose

Bits = int | Mapping[str, int]
"""2 to 8, or those of each layer by its name; a layer that is not named keeps its float weights."""


def check_bits(call: str, bits: Bits, scheme: str, group_size: int | None) -> None:
    """Refuse bits outside of what the arithmetic knows.

    Raises:
        InputError: some bits are not in 2..8, there are none, or ``scheme`` or ``group_size`` is unknown.
    """
    if isinstance(bits, Mapping) and not bits:
        raise InputError(call, "bits names no layer", "Give {'layer': 8}, or a number for all layers")
    for each in bits.values() if isinstance(bits, Mapping) else (bits,):
        check_settings(call, each, scheme, group_size)


def kept_float(
    call: str, model: nn.Module, bits: Bits, embeddings: Collection[str], keep: Collection[str]
) -> frozenset[str]:
    """The layers that keep their float weights: those to ``keep``, and those without bits of their own.

    Raises:
        InputError: ``bits`` names what is no such layer.
        ModelError: there is nothing that could be quantized.
    """
    if not isinstance(bits, Mapping):
        return frozenset(keep)
    choices, _ = choose(call, model, frozenset(embeddings), frozenset(keep))
    known = [name for choice in choices for name in choice.names]
    strange = sorted(set(bits) - set(known))
    if strange:
        raise InputError(
            call, f"bits: {strange[0]!r} is no layer that could be quantized", f"Choose from {known}"
        )
    unnamed = [choice for choice in choices if not set(choice.names) & set(bits)]
    return frozenset(keep) | {name for choice in unnamed for name in choice.names}


def bits_of(names: Sequence[str], bits: Bits) -> int:
    """The bits of a layer that has these names."""
    return bits if isinstance(bits, int) else next(bits[name] for name in names if name in bits)


def shown(bits: Bits) -> str:
    """``bits`` as a call repeats them."""
    if not isinstance(bits, Mapping) or len(bits) < 4:
        return repr(bits)
    return f"{{{', '.join(f'{name!r}: {each!r}' for name, each in list(bits.items())[:3])}, ...}}"
