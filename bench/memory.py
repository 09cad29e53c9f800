"""The most memory that pruning needs on top of the network, read from the kernel in a process of its own.

python -m bench.memory WEIGHTS SPARSITY
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path


def peak_extra_bytes(weights: int, sparsity: float) -> tuple[int, int]:
    """Peak resident memory beyond that of the loaded network, and the bytes of the network itself."""
    command = [sys.executable, "-m", "bench.memory", str(weights), str(sparsity)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured = json.loads(output)
    return measured["extra_bytes"], measured["model_bytes"]


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _main(weights: int, sparsity: float) -> None:
    from bench.prune import network, ours

    ours(network(10_000), sparsity)  # libraries load before the measurement starts
    model = network(weights)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = _status_bytes("VmRSS")
    pruned = ours(model, sparsity)
    extra = _status_bytes("VmHWM") - before
    size = sum(parameter.nbytes for parameter in model.parameters())
    del pruned
    print(json.dumps({"extra_bytes": extra, "model_bytes": size}))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]))
