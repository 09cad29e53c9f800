"""The JSON schemas of a receipt and of a summary over seeds, made from their classes; writes them into a folder.

``python -m tinypress.report.schema docs``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tinypress.files import write_bytes
from tinypress.receipt import Receipt
from tinypress.summary import SeedSummary


def receipt_schema() -> bytes:
    """The schema of ``receipt.json`` as the bytes of its file."""
    return _schema(Receipt)


def seeds_schema() -> bytes:
    """The schema of ``seeds.json`` as the bytes of its file."""
    return _schema(SeedSummary)


def _schema(of: type[Receipt] | type[SeedSummary]) -> bytes:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **of.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False).encode() + b"\n"


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]) / "receipt.schema.json", receipt_schema())
    write_bytes(Path(sys.argv[1]) / "seeds.schema.json", seeds_schema())
