"""ONNX files in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from tinypress.errors import ArtifactError, InputError


@dataclass(frozen=True)
class OnnxRunner:
    """An open session; ``run`` takes one array per input of the file."""

    session: Any
    input_names: tuple[str, ...]
    runtime: str = "onnxruntime"

    def run(self, inputs: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
        """One forward pass; returns the file's only output, [B, ...]."""
        if len(inputs) != len(self.input_names):
            raise InputError(
                f"run({len(inputs)} inputs)",
                f"the file has {len(self.input_names)}",
                "Give one array for each",
            )
        try:
            output: NDArray[np.generic] = self.session.run(
                None, dict(zip(self.input_names, inputs, strict=True))
            )[0]
        except Exception as error:
            shapes = [tuple(x.shape) for x in inputs]
            raise InputError(
                f"run({shapes})", f"ONNX Runtime refused: {_first_line(error)}", "Check shapes and dtypes"
            ) from error
        return output


def open_onnx(source: Path | bytes, threads: int = 1, *, outputs: int | None = 1) -> OnnxRunner:
    """Open an ONNX file, or its bytes, with ``threads`` threads. Data outside the file is never followed.

    Raises:
        ArtifactError: the file is missing, truncated or not one that ONNX Runtime can run.
    """
    name = source.name if isinstance(source, Path) else f"{len(source)} bytes"
    call = f"open_onnx({name}, threads={threads})"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # idle threads that spin would steal the core that another measurement is running on
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise ArtifactError(call, f"the file cannot be read ({error.strerror})", _REMEDY) from error
    except Exception as error:
        raise ArtifactError(call, f"ONNX Runtime cannot open it: {_first_line(error)}", _REMEDY) from error
    if outputs is not None and len(session.get_outputs()) != outputs:
        raise ArtifactError(
            call, f"it has {len(session.get_outputs())} outputs", "Ship a file with one output"
        )
    return OnnxRunner(session, tuple(value.name for value in session.get_inputs()))


def read_model(path: Path) -> onnx.ModelProto:
    """The ONNX file at ``path`` as it is written. Data outside the file is never followed.

    Raises:
        ArtifactError: it is missing, truncated or no ONNX file.
    """
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, OSError, ValueError) as error:
        raise ArtifactError(
            f"read_model({path.name})", f"it is not an ONNX file ({error})", _REMEDY
        ) from error


def optimized_graph(source: Path | bytes) -> onnx.GraphProto:
    """The graph that ONNX Runtime makes of a file: kernels fused, before they are laid out for this processor.

    Raises:
        ArtifactError: the file is not one that ONNX Runtime can run.
    """
    call = f"optimized_graph({source.name if isinstance(source, Path) else f'{len(source)} bytes'})"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            data = source.read_bytes() if isinstance(source, Path) else source
            onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArtifactError(
                call, f"ONNX Runtime cannot open it: {_first_line(error)}", _REMEDY
            ) from error
        graph: onnx.GraphProto = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
        return graph


_REMEDY = "Write the file again with the command that made it"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
