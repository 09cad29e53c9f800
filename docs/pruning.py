"""Write the page on structured pruning beside Torch-Pruning: ``python docs/pruning.py RESULTS.json ...``.

The files are those of ``python -m bench --only structured`` (``equal-macs``, ``recovery``, ``speedup``) ``--out FILE``;
of what several of them measured the last counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "pruning-peers.md"
PARTS = ("structured", "equal_macs", "recovery", "speedup")

HEAD = """\
# Structured pruning beside Torch-Pruning

Written by `python docs/pruning.py` from what `python -m bench --only structured`, `equal-macs`, `recovery` and
`speedup` measured on {cpu} with torch {torch}, beside Torch-Pruning 1.6. In brackets are the least and the most of the
repeats, or 95 % intervals.
"""


def page(results: dict[str, Any]) -> str:
    """The page of all four measurements."""
    lines = [HEAD.format(**results["machine"])]
    lines += _time(results["structured"], results["machine"]["structured_threads"])
    lines += _equal_macs(results["equal_macs"])
    lines += _recovery(results["recovery"])
    lines += _speed(results["speedup"])
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def _time(found: dict[str, Any], threads: int) -> list[str]:
    rows = []
    for name, row in found.items():
        times = row["times_faster"]
        rows.append(
            (
                name,
                *(f"{row[side]['median_ms']:.0f}" for side in ("theirs", "ours, not compared", "ours")),
                *(
                    f"{times[side]['ratio']:.2f} ({times[side]['low']:.2f} to {times[side]['high']:.2f})"
                    for side in ("ours, not compared", "ours")
                ),
                f"{row['parameters_theirs']:,} / {row['parameters_ours']:,}",
            )
        )
    head = (
        "network",
        "theirs, ms",
        "ours, ms",
        "and compared, ms",
        "times faster",
        "and compared",
        "left of both",
    )
    return [
        "## Time to half the width",
        "",
        f"Analysis and cut of the usual layouts with random weights on {threads} threads, in turns. Torch-Pruning "
        "hands over what it cut without running it. `ours` is `prune_structured(compare=False)`, which looks whether "
        "the result does the same operations on the sizes that are due. `and compared` is the default: the result and "
        "the whole network with its units masked are run as well, and have to return the same.",
        "",
        *_table(head, rows),
        "",
    ]  # fmt: skip


def _equal_macs(found: dict[str, Any]) -> list[str]:
    rows = []
    for task, each in found.items():
        for seed, row in enumerate(each["seeds"]):
            lost = [row[f"lost to {other}"] for other in ("theirs", "from scratch")]
            rows.append(
                (
                    task,
                    str(seed),
                    *(f"{100 * row[side]['quality']:.2f}" for side in ("ours", "theirs", "from scratch")),
                    *(f"{x['value']:.2f} ({x['low']:.2f} to {x['high']:.2f})" for x in lost),
                )
            )
    whole = ", ".join(f"{task} {100 * each['quality']:.2f} %" for task, each in found.items())
    head = ("task", "seed", "ours %", "Torch-Pruning %", "from scratch %", "lost to it", "lost to scratch")
    return [
        "## Quality at half the MACs",
        "",
        "Both pruned networks get the task's own recovery, for as many steps; the same small network from random "
        f"weights gets the whole training and those steps. On the test split in ONNX Runtime; whole networks: {whole}.",
        "",
        *_table(head, rows),
        "",
    ]


def _recovery(found: dict[str, Any]) -> list[str]:
    rows = [
        (
            name,
            f"{100 * row['accuracy']:.1f}",
            f"{row['drop']['value']:.1f} ({row['drop']['low']:.1f} to {row['drop']['high']:.1f})",
        )
        for name, row in found["networks"].items()
    ]
    lost = found["lost_to_torch_pruning"]
    low, high = found["snr_db"]
    return [
        "## CREPE at half its MACs, before and after it learns from the original",
        "",
        f"Raw pitch accuracy on {found['test_frames']} frames of {found['test_clips']} clips in noise of {low:g} to "
        f"{high:g} dB; `taught` is {found['steps']} steps of distillation on {found['train_frames']} frames. CREPE "
        "flattens channels behind time, where Torch-Pruning takes the wrong inputs of the linear layer and says "
        "nothing: its row by L2 is that; in its rows by Taylor the last block is kept, which goes around it. Ours by "
        f"Taylor lost {lost['value']:.1f} points ({lost['low']:.1f} to {lost['high']:.1f}) to those, both taught.",
        "",
        *_table(("network", "accuracy %", "drop, points"), rows),
        "",
    ]


def _speed(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, row in found.items():
        for multiple, cut in row["cut"].items():
            ratio = cut["times_faster"]
            widths = "as they come" if int(multiple) == 1 else f"multiples of {multiple}"
            share = f"{100 * cut['macs'] / row['macs']:.1f}"
            faster = f"{ratio['ratio']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            rows.append((name, widths, share, f"{cut['median_ms']:.1f}", faster))
    return [
        "## Half the MACs in time",
        "",
        "ONNX Runtime, one thread, one sample, in turns with the whole network. Channels that no vector of the "
        "processor divides fall out of the runtime's blocked layout, so that fewer of them can take longer.",
        "",
        *_table(("network", "widths", "MACs %", "ms", "times faster"), rows),
    ]


def main() -> None:
    """Write the page from the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path)
    found: dict[str, Any] = {}
    for path in parser.parse_args().results:
        read = json.loads(path.read_text(encoding="utf-8"))
        found |= {part: read[part] for part in PARTS if part in read}
        threads = found.get("machine", {}).get("structured_threads")
        found["machine"] = {**read["machine"], "structured_threads": threads}
        if "structured" in read:
            found["machine"]["structured_threads"] = read["machine"]["threads"]
    missing = [part for part in PARTS if part not in found]
    if missing:
        parser.error(
            f"no file has {', '.join(missing)}: python -m bench --only {missing[0].replace('_', '-')}"
        )
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"The page is {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
