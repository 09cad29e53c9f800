"""``try_compositions`` on a small network: what is made, what is refused, what is compared, and the page of it."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from press.small import small_task
from tinypress.cli.main import main
from tinypress.errors import InputError, RecipeError, RunError
from tinypress.press.composed import Compositions, Orders
from tinypress.press.compositions import completed, label_of, try_compositions, usual_steps
from tinypress.press.step import Layers, Magnitude, Quantize, Recover, Shrink, Step, Student
from tinypress.receipt import Drop
from tinypress.report.compositions import compositions_page, draw_compositions, reasons

TASK = small_task()
STEPS: tuple[Step, ...] = (
    Magnitude(sparsity=0.5, pattern="2:4"),
    Shrink(ratio=0.5),
    Layers(count=1),
    Recover(epochs=1),
    Student(ratio=0.5),
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compositions, Path]:
    out = tmp_path_factory.mktemp("run") / "pairs"
    return try_compositions(TASK, out, steps=STEPS, epochs=1), out


def test_every_ordered_pair_is_made_or_has_its_reason(result: tuple[Compositions, Path]) -> None:
    found, _ = result
    assert len(found.pairs) == 20
    for pair in found.pairs:
        assert (pair.drop is None) == (pair.forbidden is not None or pair.impossible is not None)
        assert pair.forbidden is None or pair.impossible is None
    assert "groups" in (found.pair("magnitude 2:4", "shrink 0.5").forbidden or "")
    assert "no layer can leave" in (found.pair("recover", "layers 1").impossible or "")
    assert "earlier steps" in (found.pair("recover", "student 0.5").forbidden or "")
    pruned = found.pair("shrink 0.5", "magnitude 2:4")
    assert [step["technique"] for step in pruned.recipe] == ["shrink", "magnitude", "recover"]
    assert pruned.drop is not None
    assert pruned.quality is not None
    assert pruned.drop.value == pytest.approx(100 * (found.baseline - pruned.quality), abs=1e-9)


def test_orders_are_chosen_on_validation_and_compared_on_test(result: tuple[Compositions, Path]) -> None:
    found, _ = result
    both = {frozenset((order.first, order.second)) for order in found.orders}
    assert both == {frozenset(("magnitude 2:4", "recover")), frozenset(("shrink 0.5", "recover"))}
    for order in found.orders:
        best, other = found.pair(order.first, order.second), found.pair(order.second, order.first)
        assert (best.validation or 0) >= (other.validation or 0)
        assert order.gain.value == pytest.approx(100 * ((best.quality or 0) - (other.quality or 0)), abs=1e-9)
        assert order.gain.low <= order.gain.value <= order.gain.high


def test_the_run_goes_on_where_it_was_and_refuses_another(
    result: tuple[Compositions, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = result
    monkeypatch.setattr(
        import_module("tinypress.press.carry_out"), "apply_step", None
    )  # nothing is done again
    again = try_compositions(TASK, out, steps=STEPS, epochs=1)
    assert again == found
    assert Compositions.model_validate(json.loads((out / "composition.json").read_text())) == found
    with pytest.raises(RunError, match="epochs"):
        try_compositions(TASK, out, steps=STEPS, epochs=2)


def test_the_page_says_all_of_it(result: tuple[Compositions, Path], tmp_path: Path) -> None:
    found, _ = result
    text = compositions_page(found, "a.png")
    for reason, letter in reasons(found).items():
        assert f"| {letter} | {reason}" in text
    for order in found.orders:
        assert f"| {order.first} > {order.second}" in text
    for pair in found.pairs:
        assert (f"| {pair.first} > {pair.second} |" in text) or pair.drop is None
    draw_compositions(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_intervals_say() -> None:
    def order(low: float, high: float) -> Orders:
        gain = Drop(value=(low + high) / 2, low=low, high=high, unit="points", method="", verdict="within")
        return Orders(first="a", second="b", tie_on_validation=False, gain=gain)

    assert order(0.1, 2).settled == "better"
    assert order(-2, -0.1).settled == "worse"
    assert order(-1, 1).settled == order(0.0, 1).settled == "no difference seen"


def test_a_pair_is_trained_once_and_before_integers() -> None:
    recover, prune, cut, int8 = Recover(epochs=1), Magnitude(sparsity=0.5), Shrink(ratio=0.5), Quantize()
    assert completed(prune, cut, recover) == (prune, cut, recover)
    assert completed(prune, int8, recover) == (prune, recover, int8)
    assert completed(recover, cut, recover) == (recover, cut)
    assert completed(prune, cut, None) == (prune, cut)
    fresh = Student(ratio=0.5)
    assert completed(fresh, cut, recover) == (fresh, cut, Recover())
    assert completed(fresh, recover, recover) == (fresh, Recover())


def test_bad_calls_are_refused(tmp_path: Path) -> None:
    for steps in ((Shrink(ratio=0.5),), (Shrink(ratio=0.5), Shrink(ratio=0.5)), ()):
        with pytest.raises(RecipeError, match="told apart"):
            try_compositions(TASK, tmp_path / "a", steps=steps)
    with pytest.raises(InputError, match="no number of epochs"):
        try_compositions(TASK, tmp_path / "a", epochs=0)
    assert not (tmp_path / "a").exists()
    assert len({label_of(step) for step in usual_steps()}) == len(usual_steps())


def test_without_training_data_pairs_are_made_untrained(tmp_path: Path) -> None:
    task = replace(TASK, train=None, loss=None)
    steps = (Magnitude(sparsity=0.3), Recover(), Shrink(ratio=0.25))
    found = try_compositions(task, tmp_path / "a", steps=steps)
    assert (
        found.pair("magnitude 0.3", "recover").impossible
        == "'recover' trains, and the task gives no train data"
    )
    assert len(found.pair("magnitude 0.3", "shrink 0.25").recipe) == 2
    assert len(found.orders) == 1


TASK_FILE = """
import torch
from torch import nn
from tinypress import Split, Task
torch.manual_seed(0)
def part(n, seed):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return Split((x,), (x[:, 0] > 0).long())
task = Task(name="own", model=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
            example_inputs=(torch.randn(2, 4),), validation=part(40, 1), test=part(60, 2), metric="accuracy")
"""
RECIPE = """
name = "mine"
[[steps]]
technique = "shrink"
ratio = 0.5
[[steps]]
technique = "magnitude"
sparsity = 0.5
"""


def test_the_command_tries_the_steps_of_a_recipe_on_a_task_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(TASK_FILE)
    (tmp_path / "mine.toml").write_text(RECIPE)
    out = tmp_path / "run"
    given = [
        "compositions",
        str(tmp_path / "own.py"),
        "--recipe",
        str(tmp_path / "mine.toml"),
        "--out",
        str(out),
    ]
    monkeypatch.setattr("sys.argv", ["tinypress", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "Which order is better" in said
    assert "shrink 0.5" in said
    assert {"composition.json", "composition.md", "composition.png"} <= {path.name for path in out.iterdir()}
