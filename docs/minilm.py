"""Write the page on MiniLM in under 10 MB: ``python docs/minilm.py RUN [RUN ...]``, folders of ``tinypress press``.

The first folder's baseline is what all files are compared with. Runs are made with the commands that the page names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import encoder  # noqa: E402

from tinypress.press.run_folder import read_receipt  # noqa: E402
from tinypress.receipt import Candidate  # noqa: E402
from tinypress.tasks import minilm, minilm_taught  # noqa: E402

PAGE = ROOT / "docs" / "minilm.md"
HALF, WORDS = "half-layers", "bert.embeddings.word_embeddings.weight"

HEAD = """\
# MiniLM in under 10 MB

MiniLM embeds sentences: six layers, 22.7 million weights, of which 11.7 million are the table of its 30,522 words. It
was pressed with the recipes in `recipes/`, and each file was judged in ONNX Runtime on all five text tasks that come
with it. `python docs/minilm.py {runs}` wrote this page after

{commands}

The text it is taught with has no labels: glosses and single words of WordNet without those that a task validates or
tests on, and what the train splits of films and mail say ({rows:,} rows of {length} tokens). Megabytes count
the file and `vocab.txt`, the tokenizer's smallest complete form ({vocabulary:,} bytes). A drop is from the float
file, in points (100 times a rank correlation), with its 95 % interval over the same test texts; the mean is over the
five tasks.

**As it stands**, the file reads an index and linear layers that were made with the float network. **Made anew**, it
makes its own from the training texts, which is fair to a network that was not taught by the float one.
"""


def page(folders: list[Path], alone: Path | None) -> str:
    """The page as the run folders have it, with the file ``alone`` of the network without a teacher."""
    found: list[tuple[Path, Candidate]] = []
    for folder in folders:
        receipt = read_receipt(folder)
        found += [
            (folder, each)
            for each in receipt.candidates
            if each.artifact.runtime == "onnxruntime" and (each.role != "baseline" or folder == folders[0])
        ]
    names = [candidate.name for _, candidate in found]
    if len(set(names)) != len(names):
        sys.exit(f"two runs hold a recipe of one name: {sorted(names)}")
    original = next(folder / each.artifact.path for folder, each in found if each.role == "baseline")
    files = {each.name: folder / each.artifact.path for folder, each in found}
    if alone is not None:
        files["alone"] = alone
    judged = encoder.measure(files, original, folders[0].parent)
    text = HEAD.format(
        runs=" ".join([*map(str, folders), *([] if alone is None else ["--alone", str(alone)])]),
        commands="\n".join([*(f"    {_command(folder)}" for folder in folders), *_command_alone(alone)]),
        rows=minilm_taught.ROWS,
        length=minilm.DEFINITION_TOKENS,
        vocabulary=len(minilm.vocabulary()),
    )
    text += _summary(found, judged, alone)
    text += "".join(_half(each, found, judged) for _, each in found if each.name == HALF)
    for way in encoder.WAYS:
        text += f"\n## {way.capitalize()}\n\n{_tasks(judged, way)}"
    return text


def _command(folder: Path) -> str:
    receipt = read_receipt(folder)
    return f"tinypress press {receipt.task} --recipe recipes/{folder.name}.toml --out {folder}"


def _command_alone(alone: Path | None) -> list[str]:
    return [] if alone is None else [f"    python -m bench.encoder_alone {alone}"]


def _summary(found: list[tuple[Path, Candidate]], judged: dict[str, Any], alone: Path | None) -> str:
    lines = [
        "| file | what it is | MB with tokenizer | smaller | time | steps took | mean drop as it stands | made anew |",
        "|---|---|---|---|---|---|---|---|",
    ]
    whole = next(each.artifact.bytes for _, each in found if each.role == "baseline")
    for _, each in found:
        bytes_ = each.artifact.bytes
        ratio = each.latency_ms.ratio_to_baseline.value if each.latency_ms is not None else None
        kind = " (control)" if each.role == "control" else ""
        means = [judged[each.name][way]["mean"] for way in encoder.WAYS]
        cells = [
            f"`{each.name}`{kind}",
            each.about or "float32",
            f"{bytes_ / 1e6:.2f}",
            f"{whole / bytes_:.2f}x",
            "" if ratio is None else f"{ratio:.2f}x",
            f"{each.seconds / 60:.1f} min",
            *(f"{mean['drop']:.1f} ({mean['low']:.1f} to {mean['high']:.1f})" for mean in means),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if alone is not None:
        bytes_ = alone.stat().st_size + len(minilm.vocabulary())
        means = [judged["alone"][way]["mean"] for way in encoder.WAYS]
        cells = [
            "`alone` (control)",
            "as small as `taught`, from random weights and without a teacher",
            f"{bytes_ / 1e6:.2f}",
            f"{whole / bytes_:.2f}x",
            "",
            "",
            *(f"{mean['drop']:.1f} ({mean['low']:.1f} to {mean['high']:.1f})" for mean in means),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n"


def _half(half: Candidate, found: list[tuple[Path, Candidate]], judged: dict[str, Any]) -> str:
    """How the network with half of the layers stands beside what DistilBERT's authors had of BERT's."""
    whole = next(each for _, each in found if each.role == "baseline")
    assert half.latency_ms is not None
    time = half.latency_ms.ratio_to_baseline
    means = [judged[each.name][encoder.WAYS[0]]["mean"]["value"] for each in (half, whole)]
    network = minilm.network()
    count = sum(x.numel() for x in network.parameters())
    words = network.get_parameter(WORDS).numel()
    smaller = 1 - half.artifact.bytes / whole.artifact.bytes
    return (
        "\n## Half of the layers, as DistilBERT\n\n"
        "DistilBERT (Sanh et al. 2019, arXiv:1910.01108) has half of BERT's layers, is 40 % smaller and 60 % faster, "
        f"and keeps 97 % of its quality. `{half.name}` has half of MiniLM's, is {100 * smaller:.0f} % smaller and "
        f"{100 * (1 / time.value - 1):.0f} % faster ({100 * (1 / time.high - 1):.0f} to "
        f"{100 * (1 / time.low - 1):.0f}), and keeps {100 * means[0] / means[1]:.1f} % of the mean over the five "
        f"tasks. It is no smaller because of MiniLM's {count / 1e6:.1f} million weights {words / 1e6:.1f} million, "
        f"{100 * words / count:.0f} %, are the table of words, which has no layers to leave.\n"
    )


def _tasks(judged: dict[str, Any], way: encoder.Way) -> str:
    names = [name for name, _ in encoder.TASKS]
    lines = [f"| file | {' | '.join(names)} | mean |", "|---|" + "---|" * (len(names) + 1)]
    for file, ways in judged.items():
        rows = ways[way]
        cells = [
            f"{rows['tasks'][name]['value']:.1f}, drop {rows['tasks'][name]['drop']:.1f} "
            f"({rows['tasks'][name]['low']:.1f} to {rows['tasks'][name]['high']:.1f})"
            for name in names
        ]
        lines.append(f"| `{file}` | {' | '.join(cells)} | {rows['mean']['value']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="named as their recipe file is")
    parser.add_argument("--alone", type=Path, metavar="FILE", help="what bench.encoder_alone wrote")
    asked = parser.parse_args()
    PAGE.write_text(page(asked.runs, asked.alone), encoding="utf-8")


if __name__ == "__main__":
    main()
