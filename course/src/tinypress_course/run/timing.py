"""The time of one forward pass of each ONNX file, both sides' in turn, when nothing else runs."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import onnxruntime
from torch import Tensor

Times = dict[tuple[str, str], float]
"""Against the toolkit's float file, by side and file."""

_ROUNDS, _PASSES = 15, 20
BASELINE = ("reference", "fp32")


def times_of(out: Path, sample: Tensor) -> Times:
    """The median over rounds of each file's time against the toolkit's float file in the same round.

    Args:
        out: the folder with the two sides' runs.
        sample: one sample, [1, ...], as the network takes it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        (side, path.stem): onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for side in ("mine", "reference")
        for path in sorted((out / side / "artifacts").glob("*.onnx"))
    }
    if BASELINE not in sessions:
        return {}
    fed = sample.numpy()
    rounds = []
    for _ in range(_ROUNDS):
        taken = {}
        for key, session in sessions.items():
            name = session.get_inputs()[0].name
            begin = time.perf_counter()
            for _ in range(_PASSES):
                session.run(None, {name: fed})
            taken[key] = time.perf_counter() - begin
        rounds.append({key: seconds / taken[BASELINE] for key, seconds in taken.items()})
    return {key: statistics.median(each[key] for each in rounds[1:]) for key in sessions}
