"""What zeros cost on disk: one matrix written three ways, and where a sparse file begins to pay."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def file_bytes(weight: Tensor) -> tuple[int, int, int]:
    """Bytes on disk of a matrix [out, in]: as it is; kept weights with 32-bit places; kept weights and one bit a place.

    The second is the compressed-sparse-row form: a column for each kept weight, an offset for each row.
    """
    kept = weight != 0
    columns = kept.nonzero()[:, 1].to(torch.int32)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)]).to(torch.int32)
    places = torch.cat([kept.flatten(), torch.zeros(-kept.numel() % 8, dtype=torch.bool)]).view(-1, 8)
    bits = (places.to(torch.int32) << torch.arange(8)).sum(1).to(torch.uint8)
    return (
        _written({"weight": weight}),
        _written({"kept": weight[kept], "columns": columns, "offsets": offsets}),
        _written({"kept": weight[kept], "places": bits}),
    )


def break_even(plain: Mapping[float, float], sparse: Mapping[float, float]) -> float:
    """The sparsity from which the sparse file is no larger, on the straight line between measured points.

    1 where it never is.
    """
    points = sorted(plain)
    for low, high in itertools.pairwise(points):
        over, under = sparse[low] - plain[low], sparse[high] - plain[high]
        if over > 0 >= under:
            return low + (high - low) * over / (over - under)
    return points[0] if sparse[points[0]] <= plain[points[0]] else 1.0


def _written(tensors: dict[str, Tensor]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
        return path.stat().st_size
