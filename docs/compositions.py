"""Write the page and the pictures of every pair of techniques in both orders: ``python docs/compositions.py``.

Two small networks on the data of ``watch``, a CNN and a transformer. A run that was stopped goes on; both take about
half an hour together on one idle core. ``--few`` tries six steps on the CNN alone, in about a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tinypress import find_task
from tinypress.cli.options import use_threads, watched
from tinypress.files import write_bytes
from tinypress.press.compositions import try_compositions
from tinypress.press.step import Distill, Factorize, Magnitude, Recover, Shrink
from tinypress.report.compositions import compositions_page, draw_compositions

DOCS = Path(__file__).parent
TASKS = ("watch", "watch-transformer")
EPOCHS = 2
FEW = (
    Magnitude(sparsity=0.8),
    Magnitude(sparsity=0.5, pattern="2:4"),
    Shrink(ratio=0.5),
    Factorize(energy=0.8),
    Recover(epochs=1),
    Distill(epochs=1),
)

HEAD = """\
# In what order do techniques go?

Each technique states what it ensures, what it cannot keep of the steps before it, and why
(`src/tinypress/press/composition.py`); an order that cannot be is refused with that reason before any training. The
other pairs were made, shipped and measured in both orders. On your own network: `tinypress compositions task.py`, or
`tinypress compositions task.py --recipe small.toml` for the steps of a recipe.
"""
ALL = "`python docs/compositions.py` wrote this page: one step of each technique on two small networks.\n"
SOME = """\
`python docs/compositions.py --few` wrote this page: six steps on one small network, each training one epoch long.
Without `--few` it tries one step of each technique on a CNN and on a transformer.
"""


def write_page(few: bool) -> None:
    """Try the pairs on each task and write docs/composition.md with a picture of each."""
    use_threads(1)
    parts = [HEAD, SOME if few else ALL]
    with watched() as progress:
        for name in TASKS[:1] if few else TASKS:
            task = find_task(name, 0, progress)
            result = try_compositions(
                task,
                Path("runs") / f"{name}-compositions{'-few' if few else ''}",
                steps=FEW if few else None,
                epochs=1 if few else EPOCHS,
                progress=progress,
            )
            picture = f"composition-{name}.png"
            draw_compositions(result, DOCS / picture)
            parts.append(compositions_page(result, picture, level=2))
    write_bytes(DOCS / "composition.md", "\n".join(parts).encode())


if __name__ == "__main__":
    write_page("--few" in sys.argv[1:])
