"""The page of all steps says what the classes check."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_its_program_writes() -> None:
    written = runpy.run_path(str(DOCS / "recipes.py"))["page"]()
    assert (DOCS / "recipes.md").read_text(encoding="utf-8") == written, "run: python docs/recipes.py"
