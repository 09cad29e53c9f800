"""Run as a process of its own: open every archive in a folder on its stock network and compare its outputs."""

import sys
from pathlib import Path

import torch
from zoo import build

from tinypress.archive import read_archive
from tinypress.graph import forward_eval, tensors_of

torch.set_num_threads(1)
folder = Path(sys.argv[1])
for path in sorted(folder.glob("*.archive.safetensors")):
    stem = path.name.removesuffix(".archive.safetensors")
    stock, inputs = build(stem.rpartition(".")[0])
    again = read_archive(path, stock).model
    due = torch.load(folder / f"{stem}.outputs.pt", weights_only=True)
    for got, want in zip(tensors_of(forward_eval(again, inputs)), due, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12, msg=stem)  # threads may differ
    print(stem)
