"""The author's linter: the module is clean, and every kind of slip is told with its line."""

import json
import shutil

import pytest

from mutants import SOURCE
from tinypress_course.cli.lint import lint
from tinypress_course.errors import SourceError
from tinypress_course.lint.all import RULES, findings_in

MODULE = SOURCE.parent
SCRIPT = SOURCE.name
SLIPS = [
    ("marks", SCRIPT, "\nmine = Engine(score=", "\n### BEGIN SOLUTION\n### END SOLUTION\nmine = Engine(score="),
    ("metadata", SCRIPT, 'sparsity", "locked": true', 'sparsity", "locked": false'),
    ("metadata", SCRIPT, 'sparsity", "locked": false, "schema_version": 3', 'sparsity", "locked": false'),
    ("metadata", SCRIPT, '"grade_id": "calculate_model_size"', '"grade_id": "count_parameters"'),
    ("test", SCRIPT, '"grade_id": "test_design_pipeline"', '"grade_id": "test_pipeline"'),
    ("test", SCRIPT, "check(design_pipeline)\n", "check(calculate_sparsity)\n"),
    ("test", SCRIPT, "check(design_pipeline, hidden=True)\n", "check(design_pipeline)\n"),
    ("points", SCRIPT, 'pipeline", "locked": true, "points": 8', 'pipeline", "locked": true, "points": 9'),
    ("points", SCRIPT, 'pipeline", "locked": true, "points": 8', 'pipeline", "locked": true, "points": 0'),
    ("functions", SCRIPT, "def design_pipeline(", "def design_a_pipeline("),
    ("functions", "module.yaml", "_techniques, design_pipeline]", "_techniques]"),
    ("functions", "module.yaml", "[calculate_sparsity, prune", "[calculate_sparsity, prune_by_lot, prune"),
    ("docstring", SCRIPT, '"""The loss, one number, of logits', '_ = """The loss, one number, of logits'),
    ("import", SCRIPT, "from tinypress import Engine\n", "from tinypress.prune import magnitude\n"),
    ("import", SCRIPT, "from tinypress import Engine\n", "from tinypress import Engine, graph\n"),
    ("tag", SCRIPT, '# %% tags=["measure"]\npruned_layer', "# %%\npruned_layer"),
    ("jupytext", SCRIPT, '# %% tags=["given"]\npictures.masks', '# %%  tags=["given"]\npictures.masks'),
    ("dots", SCRIPT, "predict(4, teacher_gain_points=...)", "predict(4, teacher_gain_points=2.0)"),
    ("dots", SCRIPT, "predict(4, teacher_gain_points=...)", "predict(3, teacher_gain_points=...)"),
    ("dots", SCRIPT, "predict(4, teacher_gain_points=...)", "predict(4, teacher_gain_points=...)\nprint(1)"),
    ("dots", SCRIPT, "\nmine = Engine(score=", "\nclaim(2, break_even_with_bits=...)\nmine = Engine(score="),
    ("measured", SCRIPT, "claim(4, every_seed_gained=...)", "claim(4, every_seed_lost=...)"),
    ("measured", SCRIPT, "predict(4, teacher_gain_points=...)", "predict(4, teacher_gain=...)"),
    ("measured", SCRIPT, "predict(5, half_width_times_smaller=", "predict(5, teacher_gain_points="),
    ("steps", SCRIPT, "# # Step 4: Knowledge distillation", "# # Step 4: Distillation"),
    ("steps", SCRIPT, "# # Step 4: Knowledge distillation", "# # Step 7: Knowledge distillation"),
    ("steps", SCRIPT, "# ## Reflect\n#\n# Did the teacher help", "# ## Think\n#\n# Did the teacher help"),
    ("steps", SCRIPT, '# %% tags=["given"]\npictures.masks', '# %% tags=["experiment"]\npictures.masks'),
    ("title", SCRIPT, "# # Where this leads", "# # Module 10: Where this leads"),
    ("title", "module.yaml", "title: Compression\n", "title: 10 Compression\n"),
    ("title", "README.md", "# Compression\n", "# 10. Compression\n"),
    ("number", SCRIPT, "# Three seeds of each,", "# The teacher gained 2.4 points. Three seeds of each,"),
    ("number", "README.md", "Nothing is pretended", "It gets 3.9× smaller. Nothing is pretended"),
    ("prerequisites", "README.md", "| `03_layers` |", "| layers |"),
]  # fmt: skip


@pytest.fixture
def module(tmp_path):
    return shutil.copytree(MODULE, tmp_path / "module", ignore=shutil.ignore_patterns("__pycache__"))


def _edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, (old, text.count(old))
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_the_module_has_nothing_to_mend(capsys):
    assert findings_in(MODULE) == ()
    assert lint(MODULE) == 0
    assert "nothing to mend" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "file", "old", "new"), SLIPS)
def test_a_slip_is_told(module, code, file, old, new):
    _edit(module / file, old, new)
    found = findings_in(module)
    assert code in {each.code for each in found}, found


def test_findings_are_data_with_file_line_and_text(module, capsys):
    line = _edit(
        module / SCRIPT,
        "predict(4, teacher_gain_points=...)",
        "predict(4, teacher_gain_points=2)",
    )
    assert lint(module) == 1
    assert (
        f"module/compression_dev.py:{line}: dots: teacher_gain_points is filled in" in capsys.readouterr().out
    )
    assert lint(module, as_json=True) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["file"], told["line"], told["code"]) == (SCRIPT, line, "dots")


def test_a_solution_cell_without_marks_is_told(module):
    script = module / SCRIPT
    head, cell, rest = script.read_text().partition('"grade_id": "calculate_sparsity"')
    for mark in ("    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"):
        rest = rest.replace(mark, "", 1)
    script.write_text(head + cell + rest)
    (told,) = [each for each in findings_in(module) if each.code == "marks"]
    assert (told.line, told.text.split()[0]) == (head.count("\n") + 1, "calculate_sparsity")


@pytest.mark.parametrize(
    "text", ["The file has 241.3 kB.", "The file has 241.3\n# kB.", "It is 3.9× smaller."]
)
def test_a_number_is_told_in_its_own_line(module, text):
    line = _edit(module / SCRIPT, "# Three seeds of each,", f"# As usual:\n# and so on. {text} Three")
    (told,) = findings_in(module)
    assert (told.code, told.line) == ("number", line + 1)


def test_numbers_that_nobody_measured_are_left_alone(module):
    _edit(
        module / SCRIPT,
        "# Three seeds of each,",
        "# Others report 40 % less (Sanh and others, 2019). Take 8 bits and a fraction of 0.5. Three seeds of each,",
    )
    assert findings_in(module) == ()


def test_a_script_that_cannot_be_read_is_refused(module):
    _edit(module / SCRIPT, "def design_pipeline(", "def design_pipeline((")
    with pytest.raises(SourceError, match=r"compression_dev\.py:\d+"):
        findings_in(module)


def test_every_kind_of_finding_is_tried():
    codes = {code for code, *_ in SLIPS}
    assert len(codes) == 15
    assert len({f"{rule.__module__}.{rule.__name__}" for rule in RULES}) == len(RULES)
