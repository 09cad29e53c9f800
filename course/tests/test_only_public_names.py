"""The course stands on tinypress's public names alone."""

import ast
from pathlib import Path

import pytest

import tinypress

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
SOURCES += sorted((Path(__file__).parents[1] / "modules").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_only_public_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("tinypress."), f"line {node.lineno}: {node.module}"
            if node.module == "tinypress":
                assert {alias.name for alias in node.names} <= set(tinypress.__all__)
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("tinypress.") for alias in node.names), f"line {node.lineno}"
