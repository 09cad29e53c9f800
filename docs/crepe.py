"""Write the page on CREPE: ``python docs/crepe.py RUN``, a folder of ``tinypress press crepe-noisy``.

Each file of the run is compared with the large network it came from, and with the small one that its authors made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tinypress.facts import Compressed  # noqa: E402
from tinypress.measure.verdict import paired_drop  # noqa: E402
from tinypress.press.measured import answers_on_test  # noqa: E402
from tinypress.press.run_folder import read_receipt  # noqa: E402
from tinypress.receipt import Candidate, Receipt  # noqa: E402
from tinypress.ship import write_onnx  # noqa: E402
from tinypress.task import Task  # noqa: E402
from tinypress.tasks import crepe  # noqa: E402

PAGE = ROOT / "docs" / "crepe.md"

HEAD = """\
# CREPE, 22 million weights, to under 10 MB and to 2 MB

CREPE tells the pitch of a sound. Its authors trained a large network (`full`) and a small one (`tiny`). `full` was
pressed by `recipes/crepe.toml`, which reads no weight of `tiny`, for sounds in noise of {low:g} to {high:g} dB: the
quietest of the conditions tried in which `full` leads `tiny` by 5 points or more on the validation split (`crepe.py`,
`choose_noise`). `python docs/crepe.py {run}` wrote this page after

    tinypress press crepe-noisy --recipe recipes/crepe.toml --threads {threads} --out {run}

The metric is the share of frames whose pitch is told within 50 cents, on {frames:,} frames of {clips} clips that
nothing was trained or chosen on. Differences are in points with their 95 % interval over clips; time is one frame in
ONNX Runtime on one thread, in turns with `full`, on {cpu}.

| file | what it is | MB | times faster | accuracy | below `full` | above `tiny` |
|---|---|---|---|---|---|---|
"""


def page(run: Path) -> str:
    """The page as the run folder has it."""
    receipt = read_receipt(run)
    task = crepe.load_noisy()
    files = [each for each in receipt.candidates if each.artifact.runtime == "onnxruntime"]
    said = {
        each.name: answers_on_test(run / each.artifact.path, "onnxruntime", task, task.metric)
        for each in files
    }
    small, small_bytes = _tiny(task)
    groups = task.test.groups
    assert groups is not None
    text = HEAD.format(
        low=crepe.NOISY_SNR_DB[0],
        high=crepe.NOISY_SNR_DB[1],
        run=run,
        threads=receipt.machine.threads,
        frames=len(task.test),
        clips=len(groups.unique()),
        cpu=receipt.machine.cpu,
    )
    whole = said[receipt.baseline.name]
    for each in files:
        text += _row(
            each, _below(task, whole, said[each.name], receipt), _below(task, said[each.name], small, receipt)
        )
    accuracy = 100 * task.metric.function(small, task.test.targets)
    text += (
        f"| `tiny` | the authors' own small network, float32 | {small_bytes / 1e6:.2f} | | {accuracy:.1f} % "
    )
    return text + f"| {_below(task, whole, small, receipt)} | |\n"


def _row(candidate: Candidate, below_full: str, above_tiny: str) -> str:
    latency = candidate.latency_ms
    first = candidate.role == "baseline"
    faster = "1" if first or latency is None else f"{1 / latency.ratio_to_baseline.value:.1f}"
    kind = " (control)" if candidate.role == "control" else ""
    cells = [
        f"`{candidate.name}`{kind}",
        candidate.about or "`full`, float32",
        f"{candidate.artifact.bytes / 1e6:.2f}",
        faster,
        f"{100 * candidate.quality.value:.1f} %",
        "" if first else below_full,
        above_tiny,
    ]
    return f"| {' | '.join(cells)} |\n"


def _below(task: Task, better: Tensor, worse: Tensor, receipt: Receipt) -> str:
    drop = paired_drop(
        better, worse, task.test.targets, task.test.groups, task.metric, receipt.tolerance.value, receipt.seed
    )
    return f"{drop.value:.1f} ({drop.low:.1f} to {drop.high:.1f})"


def _tiny(task: Task) -> tuple[Tensor, int]:
    """What the authors' small network answers on the same test split in ONNX Runtime, and its file's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        write_onnx(path, Compressed(crepe.network("tiny")), task.example_inputs)
        return answers_on_test(path, "onnxruntime", task, task.metric), path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    torch.set_num_threads(1)
    PAGE.write_text(page(parser.parse_args().run), encoding="utf-8")


if __name__ == "__main__":
    main()
