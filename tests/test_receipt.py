"""The receipt: its schema in the docs is the one of its classes, and an edit breaks its seal."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from report.sample import sample_receipt
from tinypress.receipt import Receipt
from tinypress.report.schema import receipt_schema, seeds_schema

DOCS = Path(__file__).parent.parent / "docs"
SCHEMA = DOCS / "receipt.schema.json"


def written() -> dict[str, Any]:
    """A receipt as it stands in its file."""
    value: dict[str, Any] = json.loads(sample_receipt().model_dump_json())
    return value


def test_the_schema_in_the_docs_is_that_of_the_classes() -> None:
    remedy = "write it again: python -m tinypress.report.schema docs"
    assert SCHEMA.read_bytes() == receipt_schema(), remedy
    assert (DOCS / "seeds.schema.json").read_bytes() == seeds_schema(), remedy


def test_the_schema_admits_a_receipt() -> None:
    schema = json.loads(SCHEMA.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(written())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("candidates",), []),
        (("candidates", 0, "role"), "winner"),
        (("candidates", 1, "drop", "verdict"), "fine"),
        (("candidates", 1, "artifact", "bytes"), "many"),
        (("candidates", 1, "surprise"), 1),
        (("machine", "threads"), None),
    ],
)
def test_schema_and_classes_refuse_the_same(path: tuple[str | int, ...], value: object) -> None:
    receipt = written()
    place: Any = receipt
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        Receipt.model_validate_json(json.dumps(receipt))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(receipt, json.loads(SCHEMA.read_bytes()))


def test_a_receipt_comes_back_from_its_file_unchanged() -> None:
    receipt = sample_receipt()
    again = Receipt.model_validate_json(receipt.model_dump_json())
    assert again == receipt
    assert again.checksum == again.computed_checksum()


def test_an_edit_breaks_the_seal() -> None:
    receipt = written()
    receipt["candidates"][1]["artifact"]["bytes"] += 1
    edited = Receipt.model_validate(receipt)
    assert edited.checksum != edited.computed_checksum()


def test_a_number_that_is_no_number_is_refused() -> None:
    receipt = written()
    receipt["candidates"][0]["seconds"] = float("nan")
    with pytest.raises(ValidationError, match="finite"):
        Receipt.model_validate(receipt)


def test_candidates_are_found_by_name() -> None:
    receipt = sample_receipt()
    assert receipt.candidate("int8").artifact.path == "artifacts/int8.onnx"
    assert receipt.baseline.role == "baseline"
    with pytest.raises(KeyError):
        receipt.candidate("nobody")
