"""The archive keeps a compressed network for PyTorch in one safetensors file: sparse tensors as bitmaps,
integers packed, a JSON plan beside them, no pickle. ``plan.py`` has the legend of the format."""

from tinypress.archive.listing import ArchivedTensor, archive_layers
from tinypress.archive.read import read_archive
from tinypress.archive.write import write_archive

__all__ = ["ArchivedTensor", "archive_layers", "read_archive", "write_archive"]
