"""Writes the demo's table into README.md, and its picture, from the receipt of `make demo`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from tinypress.press.run_folder import read_receipt
from tinypress.report import draw_summary, summary_table

ROOT = Path(__file__).parents[1]


def main() -> None:
    receipt = read_receipt(ROOT / "runs" / "demo")
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(summary_table(receipt))
    table = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]
    text = (ROOT / "README.md").read_text()
    block = f"\\1\n```\n{table.strip(chr(10))}\n```\n\\2"
    text = re.sub(r"(<!-- demo: begin.*?-->\n).*?(<!-- demo: end -->)", block, text, flags=re.DOTALL)
    (ROOT / "README.md").write_text(text)
    draw_summary(receipt, ROOT / "docs" / "demo.png")


if __name__ == "__main__":
    main()
