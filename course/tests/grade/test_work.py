"""A learner's file is taken apart without being executed, and so that it runs as a notebook would run it."""

from __future__ import annotations

import pytest

from tinypress_course.errors import JournalError, SourceError
from tinypress_course.grade.submission import Submission
from tinypress_course.grade.work import read_own_journal, read_work
from tinypress_course.module import SOURCE

HEAD = """# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

"""


def work_of(text):
    return read_work(Submission("ada", "ada.zip", {SOURCE: HEAD + text}))


def test_every_statement_of_an_imports_cell_stands_for_itself():
    work = work_of(
        '# %% tags=["imports"]\nimport math\nimport a_plotting_library\nfrom torch import (\n    nn,\n)\n'
    )
    assert [text.strip() for _, text in work.pieces] == [
        "import math",
        "import a_plotting_library",
        "from torch import (\n    nn,\n)",
    ]


def test_of_cells_of_ones_own_only_definitions_are_taken_with_their_decorators():
    work = work_of(
        "# %%\nimport functools\nraise RuntimeError\n\n"
        "@functools.cache\n@functools.wraps\ndef helper(x):\n    return x\n"
        "class Kept:\n    pass\nhelper(3)\n"
    )
    namespace = {}
    assert [name for name, _ in work.pieces] == ["cell 1"] * 3
    assert work.pieces[1][1].startswith("@functools.cache\n@functools.wraps\ndef helper")
    exec(work.pieces[0][1] + work.pieces[2][1], namespace)
    assert {"functools", "Kept"} <= set(namespace)


@pytest.mark.parametrize("text", ["def (", "(" * 300, "x = " + "-" * 100_000 + "1", "'\\N{no such name}'"])
def test_a_cell_that_cannot_be_read_is_broken_and_the_others_are_not(text):
    work = work_of(f"# %%\n{text}\n\n# %%\ndef fine():\n    return 1\n")
    assert list(work.broken) == ["cell 1"]
    assert [text.strip() for _, text in work.pieces] == ["def fine():\n    return 1"]


def test_a_notebook_that_is_none_is_refused_without_a_path_of_this_machine():
    with pytest.raises(SourceError) as refused:
        read_work(Submission("ada", "ada.zip", {"compression_dev.ipynb": "{"}))
    assert str(refused.value).startswith("compression_dev.ipynb cannot be read as a notebook")


def test_a_journal_that_is_none_is_refused_and_a_missing_one_is_empty():
    assert read_own_journal(Submission("ada", "ada.zip", {})).entries == ()
    for text in ("{", "[]", '{"entries": [{"kind": "wish"}]}', "[" * 100_000):
        with pytest.raises(JournalError):
            read_own_journal(Submission("ada", "ada.zip", {"journal.json": text}))
