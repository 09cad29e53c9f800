"""Run every benchmark, print a table and write the numbers to a file."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import (
    equal_macs,
    few_bits,
    int8_quality,
    int8_speed,
    int8_time,
    pack,
    prune,
    ptq,
    recovery,
    speedup,
    structured,
    teaching,
    without_labels,
)
from tinypress.files import write_bytes, write_json
from tinypress.press.threads import torch_threads
from tinypress.train import with_time_left

FULL, QUICK = 100_000_000, 2_000_000
DOCS = Path(__file__).parents[1] / "docs"
PAGE, TEACHING = DOCS / "quantization-peers.md", DOCS / "teaching.md"
FEW_BITS, SPEED = DOCS / "few-bits.md", DOCS / "int8-speed.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tensors, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only",
        choices=(
            "prune",
            "pack",
            "structured",
            "equal-macs",
            "speedup",
            "recovery",
            "int8-time",
            "int8-quality",
            "int8-speed",
            "few-bits",
            "without-labels",
            "ptq",
            "teaching",
        ),
        help="one benchmark instead of all",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument(
        "--keep", type=Path, default=Path("runs/teaching"), help="what 'teaching' has trained"
    )
    parser.add_argument(
        "--network", action="append", default=[], help="'without-labels' on this one; may be given again"
    )
    parser.add_argument("--measured", type=Path, help="folder that keeps the rows of 'without-labels'")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    weights = QUICK if asked.quick else FULL
    results: dict[str, Any] = {"machine": _machine(), "quick": asked.quick}
    if asked.only in (None, "prune"):
        results["prune"] = prune.measure(weights, asked.repeats)
    if asked.only in (None, "pack"):
        results["pack"] = pack.measure(weights, asked.repeats)
    if asked.only in (None, "structured"):
        few = ("MobileNetV2",) if asked.quick else ()
        results["structured"] = structured.measure(asked.repeats, few)
    if asked.only in (None, "equal-macs"):
        tasks, seeds = (("watch",), 1) if asked.quick else (("watch", "digits"), 3)
        results["equal_macs"] = equal_macs.measure(tasks, 0.5, seeds)
    if asked.only in (None, "speedup"):
        one = ("efficientnet-lite0",) if asked.quick else ()
        results["speedup"] = speedup.measure(1.0 if asked.quick else 6.0, one)
    if asked.only in (None, "recovery"):
        sizes = (32, 2, 4) if asked.quick else (128, 40, 200)
        results["recovery"] = recovery.measure(*sizes)
    if asked.only in (None, "int8-time"):
        results["int8_time"] = int8_time.measure(
            *((1, 4) if asked.quick else (asked.repeats, int8_time.IMAGES))
        )
    if asked.only in (None, "int8-quality"):
        results["int8_quality"] = int8_quality.measure(("watch",) if asked.quick else ())
    if asked.only in (None, "int8-speed"):
        cnn = ("efficientnet-lite0",) if asked.quick else ()
        results["int8_speed"] = int8_speed.measure(1.0 if asked.quick else 20.0, cnn)
    if asked.only in (None, "few-bits"):
        few_tasks = ("watch",) if asked.quick else ("watch", "digits", "crepe-tiny")
        results["few_bits"] = few_bits.measure(few_tasks, (3,) if asked.quick else (4, 3, 2))
    if asked.only in (None, "without-labels"):
        networks = ("crepe-tiny",) if asked.quick else asked.network
        results["without_labels"] = without_labels.measure(networks, asked.measured, with_time_left(print))
    if asked.only in (None, "ptq"):
        results["ptq"] = ptq.measure(("watch",) if asked.quick else ("watch", "digits", "efficientnet-lite0"))
    if asked.only in (None, "teaching"):
        tasks, seeds = (("watch",), 2) if asked.quick else (("watch", "digits"), 8)
        with torch_threads(1):  # as every run is by default: trainings depend on it
            results["teaching"] = teaching.measure(tasks, seeds, asked.keep)
    table = _table(results)
    if table.row_count:
        Console().print(table)
    for name, row in results.get("speedup", {}).items():
        Console().print(_speedup_table(name, row))
    for name, row in results.get("equal_macs", {}).items():
        Console().print(_equal_macs_table(name, row))
    for name, row in results.get("few_bits", {}).items():
        Console().print(few_bits.table(name, row))
    for name, row in results.get("ptq", {}).items():
        Console().print(ptq.table(name, row))
    if "int8_time" in results:
        Console().print(int8_time.table(results["int8_time"]))
    if "int8_quality" in results:
        Console().print(int8_quality.table(results["int8_quality"]))
        if not asked.quick:
            write_bytes(PAGE, int8_quality.page(results["int8_quality"], results["machine"]).encode())
    if "int8_speed" in results:
        Console().print(int8_speed.table(results["int8_speed"]))
        if not asked.quick:
            write_bytes(SPEED, int8_speed.page(results["int8_speed"], results["machine"]).encode())
    if "without_labels" in results:
        Console().print(without_labels.table(results["without_labels"]))
        if not asked.quick and not asked.network:
            text = without_labels.page(results["without_labels"], results["machine"])
            write_bytes(FEW_BITS, text.encode())
    for name, row in results.get("teaching", {}).items():
        Console().print(teaching.table(name, row))
    if "teaching" in results and not asked.quick:
        write_bytes(TEACHING, teaching.page(results["teaching"]).encode())
    if "recovery" in results:
        Console().print(_recovery_table(results["recovery"]))
    write_json(asked.out, results)


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _table(results: dict[str, Any]) -> Table:
    table = Table("benchmark", "median ms", "spread ms", "ratio", "spread of ratio")
    if "prune" in results:
        row = results["prune"]
        table.title = f"{row['weights']:,} weights, {results['machine']['threads']} threads"
        table.add_row("prune globally, torch", *_milliseconds(row["torch"]), "", "")
        table.add_row(
            "prune globally, ours", *_milliseconds(row["ours"]), *_ratio(row["times_faster"], "times faster")
        )
        same = "yes" if row["same_survivors_but_for_ties"] else "NO"
        table.add_row(
            f"  same survivors: {same} ({row['survivors_that_differ']} differ, all ties)", *[""] * 4
        )
        table.add_row(f"  exact count: {'yes' if row['pruned_exactly_as_many'] else 'NO'}", *[""] * 4)
        table.add_row(f"  extra memory: {row['peak_extra_per_model']:.2f} of the network", *[""] * 4)
    if "pack" in results:
        row = results["pack"]
        table.add_row("one pass over the memory", *_milliseconds(row["one_pass"]), "", "")
        for name in ("int8", "int8_affine", "int4", "int4_groups", "int4_groups_affine"):
            table.add_row(
                f"pack to {name}", *_milliseconds(row[name]), *_ratio(row[name]["passes"], "passes")
            )
    for name, row in results.get("structured", {}).items():
        left = ", ".join(f"{side} leaves {row[f'parameters_{side}']:,}" for side in ("ours", "theirs"))
        table.add_row(f"half of {name}, Torch-Pruning", *_milliseconds(row["theirs"]), "", "")
        for side, times in row["times_faster"].items():
            table.add_row(
                f"half of {name}, {side}", *_milliseconds(row[side]), *_ratio(times, "times faster")
            )
        table.add_row(f"  of {row['parameters']:,} parameters {left}", *[""] * 4)
    return table


def _equal_macs_table(name: str, row: dict[str, Any]) -> Table:
    table = Table("seed", "network", "MACs", "quality", "ours lost to it, points", "95 %")
    table.title = (
        f"{name} at {row['share']:.0%} of its {row['macs']:,} MACs, equal recovery; "
        f"the whole network has {row['quality']:.4f}"
    )
    for seed, found in enumerate(row["seeds"]):
        for network in ("ours", "theirs", "from scratch"):
            lost = found.get(f"lost to {network}")
            table.add_row(
                str(seed),
                "Torch-Pruning" if network == "theirs" else network,
                f"{found[network]['macs']:,}",
                f"{found[network]['quality']:.4f}",
                f"{lost['value']:.2f}" if lost else "",
                f"{lost['low']:.2f} to {lost['high']:.2f}" if lost else "",
            )
    return table


def _speedup_table(name: str, row: dict[str, Any]) -> Table:
    bar = speedup.BARS[name]
    table = Table("widths", "MACs", "median ms", "spread ms", "times faster", "where its time goes, ms")
    table.title = f"{name} at half its MACs, one thread, one sample (bar: {bar}x)"
    table.add_row("original", "100.0 %", "", "", "", _profile(row["profile_ms"]))
    for multiple, cut in row["cut"].items():
        ratio = cut["times_faster"]
        table.add_row(
            "as they come" if multiple == 1 else f"multiples of {multiple}",
            f"{100 * cut['macs'] / row['macs']:.1f} %",
            *_milliseconds(cut),
            f"{ratio['ratio']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
            _profile(cut["profile_ms"]),
        )
    quality, drop = row["quality"], row["quality"]["drop"]
    table.caption = (
        f"{quality['metric']} on test, multiples of {speedup.JUDGED}, nothing trained: {100 * quality['original']:.1f} "
        f"to {100 * quality['cut']:.1f} %, drop {drop['low']:.1f} to {drop['high']:.1f} points"
    )
    return table


def _profile(kinds: dict[str, float]) -> str:
    return "\n".join(f"{value:.1f} {kind}" for kind, value in kinds.items() if value >= 0.05)


def _recovery_table(row: dict[str, Any]) -> Table:
    table = Table("CREPE", "raw pitch accuracy %", "95 %", "drop in points", "95 %")
    least, most = row["snr_db"]
    table.title = (
        f"half the MACs, {row['steps']} steps on {row['train_frames']} frames; "
        f"{row['test_frames']} test frames of {row['test_clips']} clips at {least:g} to {most:g} dB"
    )
    for name, found in row["networks"].items():
        low, high = found["interval"]
        drop = found["drop"]
        table.add_row(
            name,
            f"{100 * found['accuracy']:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{drop['value']:.1f}",
            f"{drop['low']:.1f} to {drop['high']:.1f}",
        )
    lost = row["lost_to_torch_pruning"]
    interval = f"{lost['low']:.1f} to {lost['high']:.1f}"
    table.caption = (
        f"ours lost {lost['value']:.1f} points ({interval}) to Torch-Pruning's by Taylor, both taught"
    )
    return table


def _milliseconds(timing: dict[str, Any]) -> tuple[str, str]:
    return f"{timing['median_ms']:.1f}", f"{timing['low_ms']:.1f} to {timing['high_ms']:.1f}"


def _ratio(ratio: dict[str, float], unit: str) -> tuple[str, str]:
    return f"{ratio['ratio']:.1f} {unit}", f"{ratio['low']:.1f} to {ratio['high']:.1f}"


if __name__ == "__main__":
    main()
