"""The one place where a pickle is read: a hash-checked NumPy array, through an unpickler that admits four names.

One data package stores its recordings as a pickled dictionary of arrays. The caller has compared the file's
hash before; even so only the functions that rebuild NumPy arrays are let in.
"""

from __future__ import annotations

import codecs
import io
import pickle  # noqa: TID251  (the audited exception)
from collections.abc import Callable
from typing import Any

import numpy as np

from tinypress.errors import DataError

_MAGIC = b"\x93NUMPY\x01\x00"


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"_codecs.encode to {encoding}")
    return codecs.encode(text, "latin1")


def _reconstruct() -> Callable[..., Any]:
    # its public route: an array names the function that rebuilds it
    rebuild: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
    return rebuild


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct(),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted") from None


def read_object_array(data: bytes) -> Any:
    """The object in a one-element ``.npy`` file of dtype object, if NumPy arrays are all that it is made of.

    Raises:
        DataError: the file is no such array, or its pickle names anything but NumPy's array functions.
    """
    call = f"read_object_array({len(data)} bytes)"
    if not data.startswith(_MAGIC):
        raise DataError(call, "this is not a version 1 .npy file", "Install the pinned data packages")
    start = 10 + int.from_bytes(data[8:10], "little")
    if b"'descr': '|O'" not in data[10:start]:
        raise DataError(call, "the array does not hold objects", "Read it with numpy.load")
    try:
        array = _Unpickler(io.BytesIO(data[start:]), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            call, f"its pickle was refused: {error}", "Install the pinned data packages"
        ) from error
    if not isinstance(array, np.ndarray) or array.shape != ():
        raise DataError(call, "it does not hold one object", "Install the pinned data packages")
    return array.item()
