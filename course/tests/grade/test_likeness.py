"""Copies are named, whatever their variables are called; work of one's own is not."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import tinypress
from tinypress_course.cells import Cell, read_cells
from tinypress_course.grade.likeness import HELPERS, like_each_other, like_toolkit, prints_of, toolkit_prints
from tinypress_course.marks import released
from tinypress_course.module import SOURCE

ALTERNATIVES = sorted((Path(__file__).parents[1] / "alternatives").glob("*.py"))


@pytest.fixture(scope="module")
def rules(rubric):
    return rubric.likeness


@pytest.fixture(scope="module")
def toolkit(rules):
    return toolkit_prints(rules)


@pytest.fixture(scope="module")
def given(module, tmp_path_factory):
    """The exercise's own cells."""
    path = tmp_path_factory.mktemp("given") / SOURCE
    path.write_text(released((module / SOURCE).read_text()))
    return read_cells(path)


@pytest.fixture(scope="module")
def reference(module, given, rules):
    return prints_of(read_cells(module / SOURCE), given, rules)


def alternative(path, given, rules):
    """Another right solution, cut into the cells of the module."""
    tops = re.split(r"\n(?=(?:def|class|@)[ \w])", path.read_text())
    ids = {cell.grade_id for cell in given if cell.role == "solution"}
    cells = []
    for top in tops:
        name = re.search(r"^(?:def|class) (\w+)", top, re.MULTILINE)
        function = {"CompressionMetrics": "count_parameters"}.get(name[1], name[1]) if name else ""
        cells.append(Cell("solution" if function in ids else "other", top, function))
    return prints_of(cells, given, rules)


def renamed(source):
    """``source`` with other names for its variables, other docstrings and other comments."""
    names = (
        "layer",
        "weight",
        "sparsity",
        "bits",
        "scheme",
        "per_channel",
        "quantized",
        "temperature",
        "alpha",
        "soft",
    )
    for number, name in enumerate(names):
        source = re.sub(rf"(?<![.\w\"']){name}\b(?!\s*=[^=\s])(?![\"'])", f"value_{number}", source)
    return re.sub(r'""".*?"""', '"""My own words."""', source, flags=re.DOTALL)


def copied(function, given, rules):
    """The prints of the toolkit's source in the cell of ``function``, with what it calls in its own file."""
    public = getattr(tinypress, function)
    source = inspect.getsource(public)
    neighbours = vars(inspect.getmodule(public)).items()
    for name, helper in neighbours:
        if inspect.isfunction(helper) and helper.__module__ == public.__module__ and helper is not public:
            source += "\n\n" + inspect.getsource(helper) if re.search(rf"\b{name}\(", source) else ""
    return prints_of([Cell("solution", renamed(source), function)], given, rules)


@pytest.mark.parametrize(
    "function", ["DistillationLoss", "quantize_layer_weights", "prune_weights_by_magnitude"]
)
def test_a_copy_of_the_toolkit_is_named_with_its_file(function, given, rules, toolkit):
    (found,) = like_toolkit("eve", copied(function, given, rules), toolkit, rules)
    assert found.function == function
    assert found.other in inspect.getsourcefile(getattr(tinypress, function)).replace("\\", "/")
    assert found.share >= 0.8


def test_a_copy_in_a_cell_of_ones_own_is_named(given, rules, toolkit):
    source = renamed(inspect.getsource(tinypress.compute_neuron_importance.__globals__["group_importance"]))
    (found,) = like_toolkit("eve", prints_of([Cell("other", source)], given, rules), toolkit, rules)
    assert found.function == HELPERS


def test_the_solution_is_not_named(reference, rules, toolkit):
    assert set(reference) >= {"quantize_layer_weights", "prune_layer_neurons", "DistillationLoss"}
    assert like_toolkit("ada", reference, toolkit, rules) == []


def test_the_empty_exercise_leaves_nothing_to_compare(given, rules, toolkit):
    empty = prints_of(given, given, rules)
    assert like_toolkit("bob", empty, toolkit, rules) == []
    assert like_each_other({"bob": empty, "cleo": empty}, rules) == []


def test_differently_written_right_solutions_are_not_named(reference, given, rules, toolkit):
    everybody = {path.stem: alternative(path, given, rules) for path in ALTERNATIVES} | {
        "reference": reference
    }
    assert len(everybody) >= 4
    assert [
        one for who, prints in everybody.items() for one in like_toolkit(who, prints, toolkit, rules)
    ] == []
    assert like_each_other(everybody, rules) == []


def test_a_copy_of_another_submission_is_named_for_both(reference, module, given, rules):
    copy = [
        Cell(cell.role, cell.text.replace("weight", "w8").replace("importance", "worth"), cell.grade_id)
        for cell in read_cells(module / SOURCE)
        if cell.role == "solution"
    ]
    found = like_each_other({"ada": reference, "eve": prints_of(copy, given, rules)}, rules)
    assert {(one.learner, one.other) for one in found} == {("ada", "eve"), ("eve", "ada")}
    assert "prune_layer_neurons" in {one.function for one in found}


def test_tiny_functions_are_not_compared(given, rules):
    cell = Cell(
        "solution",
        "def calculate_sparsity(t):\n    return (t == 0).float().mean().item()",
        "calculate_sparsity",
    )
    prints = prints_of([cell], given, rules)
    assert like_each_other({"ada": prints, "eve": prints}, rules) == []


def test_text_that_is_no_python_has_no_prints(given, rules):
    for text in ("def (", "-" * 100_000 + "1", "(" * 300, "\0"):
        assert (
            prints_of([Cell("solution", text, "calculate_sparsity")], given, rules)["calculate_sparsity"]
            == set()
        )
