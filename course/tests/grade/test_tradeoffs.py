"""The part about trade-offs: guesses count as made, claims as far as they agree with the learner's own measurements."""

from __future__ import annotations

import ast

import pytest

from tinypress_course.cells import read_cells
from tinypress_course.grade.tradeoffs import agrees, judge_journal
from tinypress_course.journal import Entry, Journal
from tinypress_course.module import SOURCE

# as a run of the solution recorded them
MEASURED = {
    "file_kilobytes": 505.692, "share_in_convolutions": 0.9878, "largest_layer": "conv3", "bytes_per_parameter": 4.0,
    "points_lost_at_80_percent": 26.6, "onnx_times_smaller_at_90_percent": 1.0, "break_even_with_indices": 0.501,
    "break_even_with_bits": 0.0315, "zeros_alone_shrink_the_onnx_file": False, "int8_times_smaller": 3.77,
    "int8_points_lost": 0.0, "outlier_error_grows_times": 49.5, "outlier_error_grows_times_per_channel": 1.0,
    "fewest_bits_within_tolerance": 3, "per_channel_contains_an_outlier": True, "teacher_gain_points": -1.99,
    "every_seed_gained": False, "half_width_times_smaller": 3.867, "half_width_time_ratio": 0.6,
    "importance_beat_the_lot": True, "smallest_within_tolerance": "prune+int8.archive",
    "fastest_within_tolerance": "int8 or shrink", "phone": "prune+int8.archive", "edge_camera": "int8 or shrink",
    "cloud_bill": "shrink", "watch_battery": "int8",
}  # fmt: skip


def called_in(module, function):
    """The names that the module's cells hand to ``function``, by step."""
    names = {}
    for cell in read_cells(module / SOURCE):
        for node in ast.walk(ast.parse(cell.text)) if cell.role != "text" else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                step = ast.literal_eval(node.args[0])
                names[step] = names.get(step, ()) + tuple(each.arg for each in node.keywords if each.arg)
    return names


def journal_of(*parts):
    """A journal of (kind, {name: value}), in this order."""
    return Journal(
        entries=tuple(
            Entry(kind=kind, step=1, name=name, value=value)
            for kind, values in parts
            for name, value in values.items()
        )
    )


@pytest.fixture
def rules(rubric):
    return rubric.tradeoffs


@pytest.fixture
def whole(rules):
    """What a learner who did everything, and everything right, has written down."""
    guesses = {name: 1 for names in rules.predictions.names.values() for name in names}
    claims = {name: MEASURED[name] for names in rules.claims.names.values() for name in names}
    return guesses, MEASURED, claims


def test_the_rubric_asks_for_what_the_module_asks_for(module, rules):
    assert called_in(module, "predict") == rules.predictions.names
    assert called_in(module, "claim") == rules.claims.names
    recorded = {name for names in called_in(module, "record").values() for name in names}
    assert set(rules.plausible) <= recorded


def test_everything_written_down_and_right_has_all_points_but_the_teachers(whole, rules):
    guesses, measured, claims = whole
    done = judge_journal(
        journal_of(("prediction", guesses), ("measurement", measured), ("claim", claims)), rules
    )
    assert done.points == rules.points - rules.teacher.points == 20
    assert done.implausible == ()


def test_an_empty_journal_has_none(rules):
    assert judge_journal(Journal(), rules).points == 0


def test_a_guess_after_the_measurement_does_not_count(whole, rules):
    guesses, measured, _ = whole
    done = judge_journal(journal_of(("measurement", measured), ("prediction", guesses)), rules)
    assert done.points == 0
    assert {each.why for each in done.predictions} == {"written down afterwards"}


def test_a_step_counts_by_its_share_of_guesses(rules):
    done = judge_journal(journal_of(("prediction", {"file_kilobytes": 1.0})), rules)
    assert done.points == pytest.approx(rules.predictions.points / 6 / 2)


def test_a_claim_against_the_own_measurement_does_not_count(whole, rules):
    _, measured, claims = whole
    other = {**claims, "half_width_times_smaller": 2.0, "every_seed_gained": True, "phone": "int8"}
    done = judge_journal(journal_of(("measurement", measured), ("claim", other)), rules)
    assert {each.name for each in done.claims if not each.counts} == {
        "half_width_times_smaller",
        "every_seed_gained",
        "phone",
    }
    assert done.points == pytest.approx(rules.claims.points * 11 / 14)


def test_a_measurement_that_no_honest_run_gives_is_named_and_claims_on_it_are_worth_nothing(whole, rules):
    _, measured, claims = whole
    forged = {**measured, "break_even_with_indices": 0.9, "zeros_alone_shrink_the_onnx_file": True}
    lies = {**claims, "break_even_with_indices": 0.9, "zeros_alone_shrink_the_onnx_file": True}
    done = judge_journal(journal_of(("measurement", forged), ("claim", lies)), rules)
    assert [each.split(" is ")[0] for each in done.implausible] == [
        "break_even_with_indices",
        "zeros_alone_shrink_the_onnx_file",
    ]
    assert done.points == pytest.approx(rules.claims.points * 12 / 14)


def test_a_claim_without_a_measurement_does_not_count(rules):
    assert judge_journal(journal_of(("claim", {"phone": "int8"})), rules).points == 0


@pytest.mark.parametrize(
    ("claimed", "measured", "right"),
    [
        (4, 4.0, True),
        (3.9, 4.0, True),
        (3.5, 4.0, False),
        (-4.0, 4.0, False),
        (float("nan"), float("nan"), False),
        (10**400, 1.0, False),
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        ("int8", "int8", True),
        ("int8", "int8 or shrink", True),
        ("shrink or int8", "int8 or shrink", True),
        ("int8 or prune", "int8 or shrink", False),
        ("", "int8", False),
        ("4", 4, False),
    ],
)
def test_what_agrees(claimed, measured, right):
    assert agrees(claimed, measured, 0.1) is right
