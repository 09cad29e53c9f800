"""Quantizes a checkpoint in a process of its own and prints by how much that raised its memory."""

import ctypes
import sys
from pathlib import Path

import torch

from tinypress.quantize import quantize_checkpoint


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


torch.set_num_threads(1)
folder = Path(sys.argv[1])
quantize_checkpoint(
    folder / "warm.safetensors", folder / "warm.out.safetensors"
)  # what is set up on first use
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
quantize_checkpoint(Path(sys.argv[2]), folder / "out.safetensors")
print(status("VmHWM") - before)
