"""Signed or unsigned bytes for the weights of products: which a processor's kernels take, and where each is exact.

The numbers are the same; only the kernel that ONNX Runtime takes is another. For unsigned activations by *signed*
weights it uses a processor's 8-bit dot products (VNNI, AMX), two to three times as fast as floats; where there are
none, that kernel adds pairs in 16 bits and saturates, silently. The one for unsigned weights adds up in 32 bits
everywhere and uses no 8-bit dot products.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from tinypress.errors import ShipError
from tinypress.runtimes.onnx import read_model

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")
UNSIGNED_EXACT_ON = ("avx2", "avx512f", *DOT_PRODUCTS)
"""Where the runtime's kernels for unsigned by unsigned bytes add up in 32 bits and round halves to even: all of x86-64
since AVX2. ARM's average pooling rounds halves upwards."""

_KEY = "exact_on"


def fit_signed(isa: Collection[str]) -> bool:
    """Whether a processor with these instruction sets has the dot products that signed weights are meant for."""
    return not set(DOT_PRODUCTS).isdisjoint(isa)


def choose_signed(call: str, wanted: bool | None, isa: Collection[str]) -> bool:
    """Whether weights are stored signed: as ``wanted``, else as this processor's kernels like them.

    Raises:
        ShipError: they are wanted signed, and this processor would compute something else than the file's integers.
    """
    if wanted is None:
        return fit_signed(isa)
    if wanted and not fit_signed(isa):
        raise ShipError(
            call,
            "signed weights need 8-bit dot products (VNNI or AMX): this processor's kernel for them saturates, and "
            "nothing that is measured here would hold where they are",
            "Leave signed_weights out, or press on a processor like the one that will run the file",
        )
    return wanted


def as_bytes(
    integers: NDArray[np.signedinteger], signed: bool
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Integers of 8 symmetric bits as a file stores them, and the byte that stands for zero, []."""
    if signed:
        return integers.astype(np.int8), np.array(0, np.int8)
    return (integers.astype(np.int16) + 128).astype(np.uint8), np.array(128, np.uint8)


# which inputs of an operator are the bytes of weights
_BYTES = {
    "DequantizeLinear": (0,),
    "MatMulInteger": (1,),
    "ConvInteger": (1,),
    "DynamicQuantizeLSTM": (1, 2),
}


def holds_signed(written: onnx.ModelProto) -> bool:
    """Whether weights of products are stored as signed bytes in an integer file of ours."""
    signed = {each.name for each in written.graph.initializer if each.data_type == TensorProto.INT8}
    return any(
        {node.input[place] for place in _BYTES.get(node.op_type, ()) if place < len(node.input)} & signed
        and (node.op_type != "DequantizeLinear" or (len(node.input) > 2 and node.input[2] in signed))
        for node in written.graph.node
    )


def exact_on(written: onnx.ModelProto) -> tuple[str, ...]:
    """The instruction sets on which the runtime computes just what the integers of the file say."""
    return DOT_PRODUCTS if holds_signed(written) else UNSIGNED_EXACT_ON


def note_exact_on(written: onnx.ModelProto) -> None:
    """Let the file say on which instruction sets its integers are exact: one short entry of its metadata."""
    entry = written.metadata_props.add()
    entry.key, entry.value = _KEY, " ".join(exact_on(written))


def said_exact_on(written: onnx.ModelProto) -> tuple[str, ...]:
    """The instruction sets that the file names; none where it says nothing."""
    said = {name for entry in written.metadata_props if entry.key == _KEY for name in entry.value.split()}
    return tuple(name for name in UNSIGNED_EXACT_ON if name in said)


def read_exact_on(path: Path) -> tuple[str, ...]:
    """The instruction sets on which the integer file at ``path`` says that it is exact, such as ``avx2``.

    Empty for a file that was not compared with the reference before it was written.

    Raises:
        ArtifactError: the file cannot be opened.
    """
    return said_exact_on(read_model(path))
