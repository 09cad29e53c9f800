"""``tito submit``: one file to hand in."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinypress_course.cells import definitions, read_cells, said_in
from tinypress_course.cli.options import ModuleName
from tinypress_course.errors import CourseError
from tinypress_course.files import write_bytes
from tinypress_course.journal import read_journal, write_entries
from tinypress_course.module import JOURNAL, MODULE, SOURCE, find_module, work_file

_MOMENT = (1980, 1, 1, 0, 0, 0)  # equal work gives an equal file


def submit(
    module: ModuleName = None,
    learner: Annotated[str, typer.Option("--learner", help="Your name, as your teacher knows it.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the file.")] = None,
) -> int:
    """Pack your work and your journal into LEARNER.zip."""
    if not re.fullmatch(r"[\w][\w .'-]{0,79}", learner):
        raise CourseError(
            f"tito submit --learner {learner!r}: give your name with --learner, in letters, digits, spaces, "
            "points and hyphens"
        )
    folder = find_module(module)
    work = work_file(folder)
    cells = read_cells(work)
    definitions(cells)  # what cannot be read could not be graded
    solutions = [cell for cell in cells if cell.role == "solution"]
    blank = sum("raise NotImplementedError()" in cell.text for cell in solutions)
    said = list(said_in(cells))
    for each in said:  # so that nobody has to run minutes of measurements again to write a sentence down
        if each.kind == "claim":
            write_entries(folder / JOURNAL, "claim", each.step, each.values)
    journal = read_journal(folder / JOURNAL)
    content = {
        "submission.json": json.dumps({"format": 1, "learner": learner, "module": MODULE}),
        Path(SOURCE).with_suffix(work.suffix).name: work.read_text(encoding="utf-8"),
        JOURNAL: journal.model_dump_json(indent=1),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in content.items():
            file.writestr(zipfile.ZipInfo(name, _MOMENT), text, zipfile.ZIP_DEFLATED)
    target = out if out is not None else folder / f"{learner}.zip"
    if target.exists() and not zipfile.is_zipfile(target):
        raise CourseError(
            f"tito submit --out {target}: that is something else than a zip, and stays. Give another name"
        )
    write_bytes(target, packed.getvalue())
    kinds = [entry.kind for entry in journal.entries]
    Console().print(
        f"{target} holds {work.name}, with {len(solutions) - blank} of {len(solutions)} functions written, "
        f"and a journal of {kinds.count('prediction')} predictions, "
        f"{kinds.count('measurement')} measurements and {kinds.count('claim')} claims. Hand it in.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    open_ = [name for each in said for name in each.open]
    if open_:
        Console().print(
            f"Still three dots, and worth points: {', '.join(open_)}. Fill them in and submit again.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return 0
