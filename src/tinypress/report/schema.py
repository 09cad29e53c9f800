"""The JSON schema of a receipt, made from its classes; writes it to the file named on the command line.

``python -m tinypress.report.schema docs/receipt.schema.json``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tinypress.files import write_bytes
from tinypress.receipt import Receipt


def receipt_schema() -> bytes:
    """The schema of ``receipt.json`` as the bytes of its file."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Receipt.model_json_schema(),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False).encode() + b"\n"


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), receipt_schema())
