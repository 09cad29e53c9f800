"""Execute the module and build the book from it: ``python course/book/build.py``.

The reference solutions run; their text is taken out of the pages afterwards, and what they printed stays. The overview
page is made of module.yaml and the module's README, whose table of measurements is written here as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient

from tinypress_course.release import released

HERE = Path(__file__).resolve().parent
MODULE = HERE.parent / "modules" / "10_compression"
BUILD = HERE / "_build"
PAGES = ("compression", "size", "pruning", "quantization", "distillation", "neurons", "pipeline", "onwards")
BEGIN, END = "<!-- measured: begin (written by `make book`) -->", "<!-- measured: end -->"

ROWS = {
    "the watch network's file": ("file_kilobytes", "{:.1f} kB"),
    "accuracy lost with 80 % zeros and no training": ("points_lost_at_80_percent", "{:.1f} points"),
    "ONNX file with 90 % zeros": ("onnx_times_smaller_at_90_percent", "{:.2f}× smaller"),
    "a sparse file with 32-bit places pays from a sparsity of": ("break_even_with_indices", "{:.2f}"),
    "a sparse file with one bit a place pays from": ("break_even_with_bits", "{:.3f}"),
    "8-bit file": ("int8_times_smaller", "{:.2f}× smaller"),
    "an outlier makes the other channels' error, with one scale": (
        "outlier_error_grows_times",
        "{:.0f}× as large",
    ),
    "the teacher's gain over the same student alone, mean of three seeds": (
        "teacher_gain_points",
        "{:+.1f} points",
    ),
    "spread of that gain over the seeds": ("teacher_gain_spread", "{:.1f} points"),
    "half of every width: file": ("half_width_times_smaller", "{:.2f}× smaller"),
    "half of every width: time left": ("half_width_time_ratio", "{:.2f}"),
    "smallest file within the tolerance": ("smallest_within_tolerance", "`{}`"),
    "fastest within the tolerance": ("fastest_within_tolerance", "`{}`"),
}


def main() -> None:
    """Execute, write the pages, build the HTML."""
    shutil.rmtree(BUILD, ignore_errors=True)
    sources, work = BUILD / "source", BUILD / "work"
    sources.mkdir(parents=True)
    work.mkdir()
    notebook = executed(jupytext.read(MODULE / "compression_dev.py"), work)
    journal = json.loads((work / "journal.json").read_text())
    readme = with_measurements((MODULE / "README.md").read_text(), journal["entries"])
    (MODULE / "README.md").write_text(readme)
    for name, page in zip(PAGES, pages_of(notebook), strict=True):
        nbformat.write(page, sources / f"{name}.ipynb")
    (sources / "overview.md").write_text(
        overview(yaml.safe_load((MODULE / "module.yaml").read_text()), readme)
    )
    for name in ("_toc.yml", "conf.py", "index.md", "prerequisites.md"):
        shutil.copy(HERE / name, sources / name)
    pages = BUILD / "html"
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", sources, pages], check=True)
    print(f"The book is {pages / 'index.html'}")


def executed(notebook: Any, work: Path) -> Any:
    """The notebook with the outputs of every cell, run from ``work``."""
    os.environ["COLUMNS"] = "100"
    client = NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": work}}
    )

    def tell(cell: Any, cell_index: int) -> None:
        print(f"\rcell {cell_index + 1} of {len(notebook.cells)}", end="", file=sys.stderr, flush=True)

    client.on_cell_start = tell
    client.execute()
    print(file=sys.stderr)
    return notebook


def pages_of(notebook: Any) -> list[Any]:
    """One notebook for each first-level heading, without solutions and hidden tests."""
    pages: list[Any] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            pages.append(nbformat.v4.new_notebook(metadata=notebook.metadata))
        if cell.cell_type == "code":
            cell.source = released(cell.source)
            cell.outputs = [output for output in cell.outputs if not _passing(output)]
        if pages:
            pages[-1].cells.append(cell)
    return pages


def _passing(output: Any) -> bool:
    """Whether an output is a progress bar, which is gone when the work is done."""
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get(
        "data", {}
    )


def overview(module: dict[str, Any], readme: str) -> str:
    """The chapter's first page: what module.yaml says, then the README without its title."""
    steps = "\n".join(f"{step['number']}. {step['title']}" for step in module["steps"])
    goals = "\n".join(f"- {goal}" for goal in module["goals"])
    needs = ", ".join(f"`{each['name']}`" for each in module["prerequisites"])
    rest = readme.partition("\n")[2].replace(BEGIN, "").replace(END, "")
    return (
        f"# {module['title']}\n\n{module['about'].strip()}\n\n"
        f"Time: about {module['time_hours']} hours. Builds on {needs}.\n\n"
        f"## Goals\n\n{goals}\n\n## Steps\n\n{steps}\n{rest}"
    )


def with_measurements(readme: str, entries: list[dict[str, Any]]) -> str:
    """``readme`` with the table of measurements between its two marks."""
    measured = {e["name"]: e["value"] for e in entries if e["kind"] == "measurement"}
    rows = "\n".join(f"| {what} | {form.format(measured[name])} |" for what, (name, form) in ROWS.items())
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n| | measured |\n|---|---|\n{rows}\n\n{END}{tail}"


if __name__ == "__main__":
    main()
