"""Peak memory of running a shipped ONNX file, measured in a fresh process that does nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tinypress.errors import InputError
from tinypress.receipt import Quantity

CHILD = Path(__file__).with_name("_memory_child.py")

METHOD = (
    "growth of the high-water mark of resident memory (VmHWM) over the resident memory (VmRSS) before the "
    "file was opened, in a fresh onnxruntime process after a warm-up session of one float and one int8 "
    "convolution and matrix product: opening the file and 5 forward passes of batch 1"
)


@dataclass(frozen=True)
class PeakMemory:
    """``quantity`` in bytes, or None and the ``reason`` why it could not be measured."""

    quantity: Quantity | None
    reason: str | None = None


def peak_memory(
    path: Path,
    inputs: Sequence[tuple[tuple[int, ...], str]],
    threads: int,
    *,
    timeout_seconds: float = 60.0,
) -> PeakMemory:
    """Bytes by which opening and running the ONNX file at ``path`` raises a process's resident memory.

    ``inputs`` gives shape (batch of 1 in front) and NumPy dtype of each input, in the file's order. The
    process imports onnxruntime, runs a tiny network (what the runtime sets up on first use is not the
    file's; the code of operators other than convolution and matrix product still is), gives freed memory
    back to the system, resets the mark, then opens the file and makes 5 passes. The figure moves in pages of
    4 KiB, and by a few of them from run to run; of tens of megabytes by more, as buffers are reused or not.

    Nothing is raised for a file that cannot be run: a missing figure must not stop a run that has all the
    others. Only Linux keeps such a mark; elsewhere the quantity is None.

    Raises:
        InputError: fewer than 1 thread or no input.
    """
    call = f"peak_memory({path.name}, inputs={list(inputs)}, threads={threads})"
    if threads < 1 or not inputs:
        raise InputError(call, "there is nothing to run", "Give at least one input and one thread")
    if not sys.platform.startswith("linux"):
        return PeakMemory(None, f"only Linux keeps the high-water mark of a process, not {sys.platform}")
    request = {
        "path": str(path),
        "inputs": [[list(shape), dtype] for shape, dtype in inputs],
        "threads": threads,
        "warm_up": base64.b64encode(_warm_up_network()).decode(),
    }
    try:
        # -P keeps this folder off the child's path, where its files could stand in for others' modules.
        child = subprocess.run(
            [sys.executable, "-P", str(CHILD)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return PeakMemory(None, f"the measuring process was stopped after {timeout_seconds:g} s")
    except OSError as error:
        return PeakMemory(None, f"no process could be started ({error.strerror})")
    return _read(child.returncode, child.stdout, path)


def _read(returncode: int, stdout: str, path: Path) -> PeakMemory:
    """The answer of the child, which may have died at any point."""
    try:
        answer = json.loads(stdout)
        if "error" in answer:
            # A receipt names no path of the machine it was made on.
            reason = " ".join(str(answer["error"]).replace(str(path), path.name).split())
            return PeakMemory(None, f"the file did not run: {reason}")
        return PeakMemory(Quantity(value=float(answer["bytes"]), method=METHOD))
    except (ValueError, TypeError, KeyError):
        how = f"was ended by signal {-returncode}" if returncode < 0 else f"ended with code {returncode}"
        return PeakMemory(None, f"the measuring process {how} without an answer")


@cache
def _warm_up_network() -> bytes:
    """An ONNX network from x [1, 1, 4, 4] with a convolution and a matrix product, each in float and in int8.

    Without it the pages of the runtime's own code stand in the figure of whichever file comes first to use
    them, 0.6 MB for float and 1 MB for int8: more than a small network itself takes.
    """
    constants = {
        "kernel": np.ones((1, 1, 3, 3), np.float32),
        "matrix": np.ones((1, 1), np.float32),
        "kernel_int8": np.ones((1, 1, 3, 3), np.int8),
        "matrix_int8": np.ones((1, 1), np.int8),
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, np.int8),
        "zero_uint8": np.array(128, np.uint8),
    }
    nodes = []

    def add(kind: str, result: str, *arguments: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, list(arguments), [result], **attributes))
        return result

    def through_int8(value: str) -> str:
        integers = add("QuantizeLinear", f"{value}_q", value, "scale", "zero_uint8")
        return add("DequantizeLinear", f"{value}_dq", integers, "scale", "zero_uint8")

    value = add("Relu", "a", add("Conv", "b", "x", "kernel", pads=[1, 1, 1, 1]))
    kernel = add("DequantizeLinear", "k", "kernel_int8", "scale", "zero")
    value = add("Conv", "c", through_int8(value), kernel, pads=[1, 1, 1, 1])
    value = add("Flatten", "e", through_int8(add("GlobalAveragePool", "d", through_int8(value))))
    matrix = add("DequantizeLinear", "m", "matrix_int8", "scale", "zero")
    value = through_int8(add("MatMul", "f", through_int8(value), matrix))
    add("MatMul", "y", value, "matrix")

    graph = helper.make_graph(
        nodes,
        "warm_up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
