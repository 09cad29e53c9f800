"""What an archive holds, tensor by tensor, told without the stock network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinypress.archive.container import DAMAGED, load, pieces
from tinypress.archive.encode import nonzero
from tinypress.archive.plan import StoredTensor
from tinypress.errors import ArtifactError


@dataclass(frozen=True)
class ArchivedTensor:
    """One tensor as it stands in the file. ``bits`` are those of one stored value, ``encoded_bytes`` those of
    the whole tensor with its bitmap, scale and zero point. ``encoding`` is ``dense``, ``bitmap``,
    ``packed4``, ``bitmap+packed4``... ``nonzero`` counts what stands for another number than 0."""

    name: str
    layer: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    encoding: str
    encoded_bytes: int
    nonzero: int


def archive_layers(path: Path) -> tuple[ArchivedTensor, ...]:
    """What the file holds, tensor by tensor in the order of the network, read off its bytes.

    Raises:
        ArtifactError: as ``read_archive``, as far as it can be told without the stock network.
    """
    call = f"archive_layers({path.name!r})"
    plan, data = load(path, call)
    owners = [layer for layer in plan.layers for _ in layer.tensors]
    facts = []
    for layer, (name, row, piece) in zip(owners, pieces(plan, data), strict=True):
        try:
            count = nonzero(row, piece)
        except ValueError as error:
            raise ArtifactError(call, f"{name!r}: {error}", DAMAGED) from error
        facts.append(
            ArchivedTensor(
                name=name,
                layer=layer.module,
                kind=layer.kind,
                shape=row.shape,
                dtype=row.dtype_name,
                bits=row.value_bits,
                encoding=_encoding(row),
                encoded_bytes=sum(row.parts_bytes),
                nonzero=count,
            )
        )
    return tuple(facts)


def _encoding(row: StoredTensor) -> str:
    packed = "" if row.bits is None else f"packed{row.bits}"
    if row.kept is None:
        return packed or "dense"
    return f"bitmap+{packed}" if packed else "bitmap"
