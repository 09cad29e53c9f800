"""A learner's way: start, test, hint, status, and what is said at each point."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from learning import MODULE, fill
from tinypress_course import doctor
from tinypress_course.errors import CourseError
from tinypress_course.module import read_module

FUNCTIONS = read_module(MODULE).functions
DENSITY = """\
total = module_or_tensor.numel()
return int((module_or_tensor != 0).sum()) / total if total else 0.0
"""
RIGHT = """\
if isinstance(module_or_tensor, torch.Tensor):
    tensors = [module_or_tensor]
elif isinstance(module_or_tensor, nn.Module):
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    tensors = [m.weight for m in module_or_tensor.modules() if isinstance(m, kinds)]
    if not tensors:
        raise ValueError("there are no weights")
else:
    raise ValueError("give a module or a tensor")
total = sum(t.numel() for t in tensors)
return sum(int((t == 0).sum()) for t in tensors) / total if total else 0.0
"""


def test_start_writes_the_exercise_and_never_over_work(tito, exercise):
    text = (exercise / "compression_dev.py").read_text()
    assert text.count("raise NotImplementedError()") >= len(FUNCTIONS)
    assert "BEGIN SOLUTION" not in text
    assert {"README.md", "module.yaml", "tests"} <= {each.name for each in exercise.iterdir()}
    with pytest.raises(CourseError, match="not empty"):
        tito("start", "10_compression", "--into", str(exercise.parent))


def test_start_of_an_unknown_module_names_those_there_are(tito):
    with pytest.raises(CourseError, match="There is: 10_compression"):
        tito("start", "11_kernels")


def test_nothing_written_fails_every_function(tito, exercise, capsys):
    assert tito("test") == 1
    told = capsys.readouterr().out
    assert all(f"· to write {name}" in told for name in FUNCTIONS)
    assert f"0 of {len(FUNCTIONS)} functions" in told


def test_the_solution_holds(tito, solved, capsys):
    assert tito("test") == 0
    assert f"{len(FUNCTIONS)} of {len(FUNCTIONS)} functions" in capsys.readouterr().out
    assert tito("status") == 0
    assert "100 of 100 automatic points" in capsys.readouterr().out


def test_a_wrong_function_is_named_with_the_smallest_example(tito, exercise, capsys):
    fill(exercise / "compression_dev.py", "calculate_sparsity", DENSITY.replace("!= 0", "!= 0"))
    assert tito("test", "--step", "2") == 1
    told = capsys.readouterr().out
    assert "calculate_sparsity" in told
    assert "[0, " in told  # the smallest input on which it shows
    assert "known mistake" in told.lower()
    assert "density" in told


def test_only_the_step_that_was_asked_for(tito, exercise, capsys):
    tito("test", "--step", "3")
    told = capsys.readouterr().out
    assert "quantize_layer_weights" in told
    assert "DistillationLoss" not in told
    with pytest.raises(CourseError, match="1 to 6"):
        tito("test", "--step", "7")
    with pytest.raises(CourseError, match="Do you mean calculate_sparsity"):
        tito("test", "calculate_sparsit")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("def broken(:\n", "line"),
        ("undefined_name\n", "undefined_name"),
        ("import no_such_package\n", "no_such"),
    ],
)
def test_a_file_that_cannot_run_is_told_by_its_line(tito, exercise, capsys, line, says):
    work = exercise / "compression_dev.py"
    work.write_text(work.read_text().replace("import copy\n", f"import copy\n{line}", 1))
    assert tito("test") == 1
    assert says in capsys.readouterr().out


def test_hints_open_one_by_one_with_attempts(tito, exercise, capsys):
    work = exercise / "compression_dev.py"
    assert tito("hint", "calculate_sparsity") == 0
    assert "not written yet" in capsys.readouterr().out
    shown = []
    for attempt in range(4):
        text = work.read_text()
        fill(work, "calculate_sparsity", f"return {attempt + 0.5}")
        tito("hint", "calculate_sparsity")
        tito("hint", "calculate_sparsity")  # asking again without a change shows no more
        shown.append(capsys.readouterr().out.count("calculate_sparsity, "))
        work.write_text(text)
    assert shown == [2, 4, 6, 6]


def test_no_hint_holds_code():
    from tinypress_course.hints import read_hints

    hints = read_hints("10_compression")
    assert tuple(hints) == FUNCTIONS
    for three in hints.values():
        assert all("torch." not in text and " = " not in text and "def " not in text for text in three)


def test_a_cell_that_is_no_python_costs_its_own_function_alone(tito, exercise, capsys):
    work = exercise / "compression_dev.py"
    fill(work, "calculate_sparsity", "return return")
    fill(work, "prune_weights_by_magnitude", "return layer")
    assert tito("test", "--step", "2") == 1
    told = capsys.readouterr().out
    assert "calculate_sparsity can be executed: not yet" in told
    assert "return return" in told
    assert told.count(": not yet.") == 2  # what was written besides is judged all the same


def test_where_only_bad_input_is_left_no_hint_is_used_up(tito, exercise, capsys):
    solution = (
        "tensors = [module_or_tensor]\n"
        "if isinstance(module_or_tensor, nn.Module):\n"
        "    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)\n"
        "    tensors = [m.weight for m in module_or_tensor.modules() if isinstance(m, kinds)]\n"
        "count = sum(t.numel() for t in tensors)\n"
        "return sum(int((t == 0).sum()) for t in tensors) / count if count else 0.0"
    )
    fill(exercise / "compression_dev.py", "calculate_sparsity", solution)
    tito("hint", "calculate_sparsity")
    told = capsys.readouterr().out
    assert "calculate_sparsity does not keep: refuses what is neither module nor tensor" in told
    assert "bad input" in told
    assert "a nudge" not in told


def test_hint_for_what_holds_says_so(tito, solved, capsys):
    assert tito("hint", "design_pipeline") == 0
    assert "nothing to hint at" in capsys.readouterr().out


def test_attempts_are_counted_once_for_a_text(tito, exercise, capsys):
    fill(exercise / "compression_dev.py", "calculate_sparsity", "return 7.0")
    tito("test", "calculate_sparsity")
    tito("test", "calculate_sparsity")
    capsys.readouterr()
    tito("status")
    row = next(line for line in capsys.readouterr().out.splitlines() if "calculate_sparsity" in line)
    assert row.split()[-1] == "1"


def test_watch_tests_again_when_the_file_is_saved(exercise):
    work = exercise / "compression_dev.py"
    command = [sys.executable, "-m", "tinypress_course", "test", "calculate_sparsity", "--watch"]
    process = subprocess.Popen(command, cwd=exercise, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        assert any("0 of 1" in line for line in lines)
        assert any("watching" in line for line in lines)
        time.sleep(1.5)  # the watcher is set up after the line is printed
        fill(work, "calculate_sparsity", RIGHT)
        assert any("1 of 1" in line for line in lines)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_doctor_names_what_is_missing(tito, capsys, monkeypatch):
    assert tito("doctor") == 0

    def broken() -> str:
        raise RuntimeError("a Linear's weight is not [out, in]")

    monkeypatch.setitem(doctor.TRIES, "03_layers", broken)
    assert tito("doctor") == 1
    told = capsys.readouterr().out
    assert "Not there: 03_layers" in told
    assert "not [out, in]" in told


def test_outside_a_module_the_remedy_is_said(tito):
    with pytest.raises(CourseError, match="tito start 10_compression"):
        tito("test")


def test_every_command_has_help():
    for name in ("doctor", "start", "test", "hint", "status", "notebook", "export", "run", "submit", "grade"):
        from tinypress_course.cli.main import app_for

        with pytest.raises(SystemExit) as ended:
            app_for([name])([name, "--help"])
        assert ended.value.code == 0


def test_python_dash_m(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tinypress_course", "start"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "module" in done.stderr.lower()
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import sys; sys.exit(0)", "ended the program"),
        ("raise BaseException(1)", "BaseException"),
        ("return 10**5000", "promises are broken"),
        ("class Odd(ValueError):\n    def __str__(self): return 1 / 0\nraise Odd", "no text"),
        ("raise ValueError(chr(0xD800))", "ValueError"),
    ],
)
def test_whatever_a_function_does_is_an_answer(tito, exercise, capsys, body, says):
    fill(exercise / "compression_dev.py", "calculate_sparsity", body)
    assert tito("test", "calculate_sparsity") == 1
    assert says in capsys.readouterr().out


def test_settings_of_torch_are_taken_back(tito, exercise, capsys):
    work = exercise / "compression_dev.py"
    fill(work, "calculate_sparsity", "torch.set_default_dtype(torch.float64)\nreturn 0.5")
    tito("test", "--step", "2")
    assert torch.get_default_dtype() == torch.float32


def test_nothing_is_written_over_the_work(tito, solved):
    before = (solved / "compression_dev.py").read_bytes()
    with pytest.raises(CourseError, match="stays"):
        tito("submit", "--learner", "Ada", "--out", "compression_dev.py")
    with pytest.raises(CourseError, match="stays"):
        tito("notebook", "--out", "compression_dev.py")
    assert (solved / "compression_dev.py").read_bytes() == before


def test_a_byte_order_mark_does_no_harm(tito, solved):
    work = solved / "compression_dev.py"
    work.write_bytes(b"\xef\xbb\xbf" + work.read_bytes().replace(b"\n", b"\r\n"))
    assert tito("test", "--step", "2") == 0


@pytest.mark.parametrize("points", ['"points": "many"', '"points": [1]'])
def test_odd_metadata_is_refused_in_words(tito, exercise, points):
    work = exercise / "compression_dev.py"
    work.write_text(work.read_text().replace('"points": 4', points, 1))
    with pytest.raises(CourseError, match="cannot be read as a notebook"):
        tito("status")


def test_a_function_without_a_check_is_no_function_that_holds(tito, exercise):
    facts = exercise / "module.yaml"
    facts.write_text(facts.read_text().replace("count_parameters", "foo"))
    with pytest.raises(CourseError, match="no check for 'foo'"):
        tito("status")


def test_claims_are_read_from_the_file_when_it_is_handed_in(tito, solved, capsys):
    work = solved / "compression_dev.py"
    text = work.read_text()
    work.write_text(text.replace("fewest_bits_within_tolerance=...", "fewest_bits_within_tolerance=4", 1))
    assert work.read_text() != text
    assert tito("submit", "--learner", "Ada") == 0
    told = capsys.readouterr().out
    assert "Still three dots" in told
    assert "fewest_bits_within_tolerance" not in told
    journal = json.loads((solved / "journal.json").read_text())["entries"]
    assert {"kind": "claim", "step": 3, "name": "fewest_bits_within_tolerance", "value": 4} in journal
