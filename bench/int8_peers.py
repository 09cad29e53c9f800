"""Those who also turn a float ONNX file into an int8 one, each as its own guide has it, on the same samples.

ONNX Runtime        quantize_static after quant_pre_process, one scale an output channel, ranges by minimum and maximum
NNCF                nncf.quantize on the ONNX file, or on OpenVINO's form of it; all samples, its defaults otherwise
Neural Compressor   Intel's onnx-neural-compressor, its static configuration; nodes must have names, so they get some

Neural Compressor asks for a NumPy of old and is installed without its dependencies (requirements/peers.txt); its main
package no longer takes ONNX files. Calls keep their output to themselves.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Feed = dict[str, NDArray[np.generic]]
Peer = Callable[[Path, Path, Sequence[Feed]], object]
"""Reads the float file, writes the int8 file (or the .xml of one), calibrated on one feed after the other."""


def by_onnxruntime(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(source, ready)
        quantize_static(ready, target, Reader(), per_channel=True)


def by_nncf(source: Path, target: Path, feeds: Sequence[Feed], *, transformer: bool = False) -> None:
    import nncf

    kind = nncf.ModelType.TRANSFORMER if transformer else None
    with _quiet():
        made = nncf.quantize(
            onnx.load(source), nncf.Dataset(list(feeds)), subset_size=len(feeds), model_type=kind
        )
        onnx.save(made, target)


def by_nncf_on_openvino(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    import nncf
    import openvino

    with _quiet():
        made = nncf.quantize(
            openvino.Core().read_model(source), nncf.Dataset(list(feeds)), subset_size=len(feeds)
        )
        openvino.save_model(made, target.with_suffix(".xml"))


def by_neural_compressor(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import config, quantize

    class Reader(data_reader.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> Feed | None:
            return next(self.left, None)

        def rewind(self) -> None:
            self.left = iter(feeds)

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        proto = onnx.load(source)
        for number, node in enumerate(proto.graph.node):
            node.name = f"{node.op_type}_{number}"
        named = Path(folder) / "named.onnx"
        onnx.save(proto, named)
        quantize(named, target, config.StaticQuantConfig(calibration_data_reader=Reader(), per_channel=True))


def for_quality(transformer: bool) -> Mapping[str, Peer]:
    """Peers whose file ONNX Runtime runs; NNCF is told where attention is, as its guide says."""
    return {
        "ONNX Runtime": by_onnxruntime,
        "NNCF": partial(by_nncf, transformer=transformer),
        "Neural Compressor": by_neural_compressor,
    }


def for_time() -> Mapping[str, Peer]:
    """Peers in the order in which they take turns."""
    return {
        "ONNX Runtime": by_onnxruntime,
        "NNCF": by_nncf,
        "NNCF on OpenVINO": by_nncf_on_openvino,
        "Neural Compressor": by_neural_compressor,
    }


def load_all() -> None:
    """Import every peer, so that no timing has an import in it."""
    with _quiet():
        for name in ("nncf", "nncf.onnx", "openvino", "onnxruntime.quantization", "onnx_neural_compressor"):
            __import__(name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def feeds_of(names: Sequence[str], columns: Sequence[Any]) -> list[Feed]:
    """One feed a sample, of the inputs called ``names``."""
    count = len(columns[0])
    return [
        {name: column[k : k + 1].numpy() for name, column in zip(names, columns, strict=True)}
        for k in range(count)
    ]
