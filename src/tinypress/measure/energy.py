"""Energy of one inference, estimated from counts: no counter is read, and the method says so."""

from __future__ import annotations

from tinypress.errors import InputError
from tinypress.receipt import Quantity

# Picojoules at 45 nm and 0.9 V.
ADD_INT8, MULTIPLY_INT8 = 0.03, 0.2
ADD_FLOAT32, MULTIPLY_FLOAT32 = 0.9, 3.7
READ_SRAM_WORD, READ_DRAM_WORD = 5.0, 640.0
WORD_BYTES = 4
MJ_PER_PJ = 1e-9

METHOD = (
    "estimate: operations and bytes moved, each times its published energy at 45 nm (Horowitz, ISSCC 2014); "
    "weights read once from DRAM, activations from SRAM"
)


def estimate_energy(macs_int8: int, macs_float: int, weight_bytes: int, activation_bytes: int) -> Quantity:
    """Millijoules of one inference.

    E = macs_int8 (0.2 + 0.03) + macs_float (3.7 + 0.9) + weight_bytes 640 / 4 + activation_bytes 5 / 4, in
    picojoules: a multiplication and an addition each, every weight read once from DRAM, every activation
    from an 8 KB SRAM, both in 32-bit words. A lower bound for comparing networks: control, leakage, caches
    that miss and newer processes are left out.

    Raises:
        InputError: a count below 0.

    Reference: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure
    1.1.9.
    """
    counts = (macs_int8, macs_float, weight_bytes, activation_bytes)
    if min(counts) < 0:
        raise InputError(f"estimate_energy{counts}", "a count is below 0", "Give counts of one inference")
    picojoules = (
        macs_int8 * (MULTIPLY_INT8 + ADD_INT8)
        + macs_float * (MULTIPLY_FLOAT32 + ADD_FLOAT32)
        + weight_bytes * READ_DRAM_WORD / WORD_BYTES
        + activation_bytes * READ_SRAM_WORD / WORD_BYTES
    )
    return Quantity(value=picojoules * MJ_PER_PJ, method=METHOD)
