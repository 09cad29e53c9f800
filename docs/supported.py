"""Try structured pruning on every architecture at three ratios, twice in a row, and write the page that lists them.

``python docs/supported.py`` stops at the first thing that a pruned network cannot do.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from rich.progress import track

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "shrink"))

from rows import Row, reopened, try_row  # noqa: E402  (the tests' own)
from zoo import ZOO  # noqa: E402

RATIOS = (0.25, 0.5, 0.75)
PAGE = ROOT / "docs" / "supported-models.md"

HEAD = """\
# Architectures that structured pruning was tried on

Each is a small network of that design (the convolutional and recurrent ones are in `tests/shrink/zoo_own.py`,
the others are the definitions of `transformers`), pruned with `prune_structured` at ratios of 0.25, 0.5 and
0.75, each twice in a row. After each cut it computed what the whole network computes with the removed units
read as zero (float64, 1e-9), trained a step, and gave the same outputs when it was opened again from its
archive in a fresh process; after the second it gave them in ONNX Runtime, too. Parameters are those before,
after one cut, and after two. `make supported` writes this page; it was written with torch {torch} and
transformers {transformers}.

| architecture | groups | ratio 0.25 | ratio 0.5 | ratio 0.75 | keeps its neurons |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Try every row and write the page."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in track(ZOO, "architectures"):
            rows = []
            for ratio in RATIOS:
                place = Path(folder) / str(ratio)
                place.mkdir(exist_ok=True)
                rows.append(try_row(name, ratio, place))
            lines.append(_line(rows))
        for ratio in RATIOS:
            reopened(Path(folder) / str(ratio))
    head = HEAD.format(torch=torch.__version__.partition("+")[0], transformers=transformers.__version__)
    PAGE.write_text(head + "\n".join(lines) + "\n")
    print(f"All {len(lines)} architectures do all of it. The page is {PAGE.relative_to(ROOT)}")


def _line(rows: list[Row]) -> str:
    counts = [" → ".join(f"{count:,}" for count in row.parameters) for row in rows]
    left = ", ".join(f"`{name}`" for name in rows[0].left)
    return f"| {rows[0].name} | {rows[0].groups} | {' | '.join(counts)} | {left} |"


if __name__ == "__main__":
    main()
