"""Integers that take longer than the floats of the same network are passed over, and had by a limit of bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from press.small import samples
from press.test_choose import Role, candidate
from tinypress.press import compare
from tinypress.press.choose import choose, passed_over
from tinypress.press.findings import choice_findings
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe, parse_recipes
from tinypress.press.step import Magnitude, Quantize, Step
from tinypress.press.verify import verify
from tinypress.receipt import Candidate, Latency, Ratio
from tinypress.task import Task

INT8, PRUNE = Quantize(), Magnitude(sparsity=0.5)


def timed(
    name: str, bytes_: int, low: float, high: float, *steps: Step, runtime: str = "onnxruntime"
) -> Candidate:
    role: Role = "candidate" if steps else "baseline"
    made = candidate(name, bytes_, 0.9, role=role)
    latency = Latency(
        median=1, low=1, high=1, batch=1, threads=1,
        ratio_to_baseline=Ratio(value=(low + high) / 2, low=low, high=high),
    )  # fmt: skip
    return made.model_copy(
        update={
            "latency_ms": latency,
            "recipe": tuple(step.model_dump(mode="json") for step in steps),
            "artifact": made.artifact.model_copy(update={"runtime": runtime}),
        }
    )


FP32 = timed("baseline", 1000, 1, 1)


def test_integers_are_chosen_where_their_time_is_not_beyond_that_of_the_floats() -> None:
    assert choose([FP32, timed("int8", 300, 0.99, 1.4, INT8)], True, 0.01) == "int8"
    assert choose([FP32, timed("int8", 300, 1.01, 1.4, INT8)], True, 0.01) == "baseline"
    (said,) = passed_over([FP32, timed("int8", 300, 1.01, 1.4, INT8)], True, 0.01)
    assert (said.candidate.name, said.faster.name) == ("int8", "baseline")


def test_they_are_compared_with_the_same_network_only() -> None:
    pruned = timed("prune", 990, 0.95, 1.05, PRUNE)
    both = timed("prune+int8", 300, 1.01, 1.2, PRUNE, INT8)
    assert choose([FP32, both], True, 0.01) == "prune+int8"  # what the floats of its steps take is not known
    assert choose([FP32, pruned, both], True, 0.01) == "prune+int8"  # 1.01 is inside of 0.95 to 1.05
    slower = timed("prune+int8", 300, 1.06, 1.2, PRUNE, INT8)
    assert choose([FP32, pruned, slower], True, 0.01) == "prune"
    control = pruned.model_copy(update={"role": "control"})
    assert choose([FP32, control, slower], True, 0.01) == "prune+int8"


def test_in_the_same_runtime_where_there_is_one() -> None:
    archive = timed("int8.archive", 250, 4, 5, INT8, runtime="torch")
    assert choose([FP32, archive], True, 0.01) == "baseline"
    pruned = (
        timed("prune", 990, 0.9, 1.1, PRUNE),
        timed("prune.archive", 400, 4.5, 5.5, PRUNE, runtime="torch"),
        timed("prune+int8.archive", 100, 4, 5, PRUNE, INT8, runtime="torch"),
    )
    assert choose([FP32, archive, *pruned], True, 0.01) == "prune+int8.archive"


@pytest.mark.parametrize(
    "step",
    [Quantize(weights_only=True), Quantize(bits=4), Quantize(scheme="affine"), Quantize(layers=(("0", 4),))],
    ids=["weights alone", "4 bits", "affine", "a layer of 4 bits"],
)
def test_who_asks_for_bytes_gets_them(step: Step) -> None:
    assert choose([FP32, timed("few", 300, 2, 3, step)], True, 0.01) == "few"


def test_a_limit_of_bytes_decides() -> None:
    found = [FP32, timed("int8", 300, 2, 3, INT8), timed("prune", 600, 1, 1.1, PRUNE)]
    assert choose(found, True, 0.01) == "prune"
    assert choose(found, True, 0.01, max_bytes=1000) == "prune"  # the floats have no more than that
    assert choose(found, True, 0.01, max_bytes=999) == "int8"
    assert choose(found, True, 0.01, max_bytes=10) == "int8"  # none has so few: the smallest
    assert passed_over(found, True, 0.01, max_bytes=10) == ()


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.floats(0.1, 3), st.sampled_from([(), (INT8,), (PRUNE,), (PRUNE, INT8)])),
        max_size=6,
    ),
    st.none() | st.integers(1, 60),
)  # fmt: skip
def test_the_choice_is_never_slow_integers_beside_their_floats(
    made: list[tuple[int, float, tuple[Step, ...]]], max_bytes: int | None
) -> None:
    found = [FP32.model_copy(update={"artifact": FP32.artifact.model_copy(update={"bytes": 40})})]
    found += [timed(f"c{n}", b, t, t, *(steps or (PRUNE, PRUNE))) for n, (b, t, steps) in enumerate(made)]
    chosen = next(c for c in found if c.name == choose(found, True, 0.01, max_bytes))
    allowed = [c for c in found if max_bytes is None or c.artifact.bytes <= max_bytes]
    if not allowed:
        assert chosen.artifact.bytes == min(c.artifact.bytes for c in found)
        return
    assert chosen in allowed
    assert chosen.latency_ms is not None
    if chosen.recipe and chosen.recipe[-1]["technique"] == "quantize":
        floats = [c for c in allowed if c.recipe == chosen.recipe[:-1]]
        times = [c.latency_ms.ratio_to_baseline.value for c in floats if c.latency_ms is not None]
        assert all(time >= chosen.latency_ms.ratio_to_baseline.value for time in times)
    smaller = [c for c in allowed if c.artifact.bytes < chosen.artifact.bytes]
    told = {p.candidate.name for p in passed_over(found, True, 0.01, max_bytes)}
    assert {c.name for c in smaller} <= told


def narrow_task() -> Task:
    """Layers so small, and floats between all of them, that integers cannot be faster."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(16, 64)]
    for _ in range(6):
        layers += [nn.Tanh(), nn.Linear(64, 64)]
    return Task(
        name="narrow",
        model=nn.Sequential(*layers, nn.Tanh(), nn.Linear(64, 3)).eval(),
        example_inputs=(torch.randn(2, 2, 8),),
        train=samples(64, 1),
        validation=samples(50, 2),
        test=samples(50, 3),
        loss=nn.functional.cross_entropy,
        metric="accuracy",
        tolerance=100.0,
    )


@pytest.mark.slow
def test_a_measured_pair(tmp_path: Path) -> None:
    task, recipes = narrow_task(), (compare.BASELINE, Recipe(name="int8", steps=(INT8,)))
    receipt = press(task, recipes, tmp_path / "run")
    int8 = receipt.candidate("int8")
    assert int8.artifact.bytes < receipt.baseline.artifact.bytes
    assert int8.latency_ms is not None
    assert int8.latency_ms.ratio_to_baseline.low > 1
    assert receipt.chosen == "fp32"
    told = {finding.code: finding.text for finding in int8.latency_ms.findings}
    assert "'fp32', takes 0." in told["TP106"]
    assert f"--max-bytes {int8.artifact.bytes}" in told["TP106"]
    limited = press(task, recipes, tmp_path / "limited", max_bytes=int8.artifact.bytes)
    assert limited.chosen == "int8"
    assert limited.max_bytes == int8.artifact.bytes
    assert not {"TP106", "TP407"} & {f.code for c in limited.candidates for f in c.all_findings}
    assert verify(tmp_path / "limited", task) == ()
    assert choose(receipt.candidates, True, 1.0, max_bytes=10) == "int8"
    _, (said,) = choice_findings(receipt.candidates, (), "int8", 10)
    assert said.code == "TP407"
    assert "no file of at most 10 bytes" in said.text


def test_a_recipe_file_may_hold_the_limit() -> None:
    file = parse_recipes("read_recipes(x)", {"max_bytes": 7, "recipes": [{"name": "a"}]})
    assert file.max_bytes == 7
