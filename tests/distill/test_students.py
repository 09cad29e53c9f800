"""Students by the constructor's numbers, or one's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tinypress.distill import own_student, scale_student
from tinypress.errors import InputError, ModelError

X = (torch.randn(4, 6, generator=torch.Generator().manual_seed(0)),)


def build(widths: tuple[int, ...], depth: int = 1, classes: int = 3) -> nn.Module:
    layers: list[nn.Module] = []
    given = 6
    for width in widths:
        for _ in range(depth):
            layers += [nn.Linear(given, width), nn.ReLU()]
            given = width
    return nn.Sequential(*layers, nn.Linear(given, classes))


SETTINGS = {"widths": (40, 20), "depth": 4, "classes": 3}
TEACHER = build(**SETTINGS)  # type: ignore[arg-type]


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in model.parameters() if p.ndim > 1]


def test_widths_and_depth_are_multiplied() -> None:
    state = torch.get_rng_state()
    done = scale_student(build, SETTINGS, {"widths": 0.5, "depth": 0.25}, TEACHER, X, seed=1)
    assert shapes(done.model) == [(20, 6), (10, 20), (3, 10)]
    assert [(c.what, c.was, c.now) for c in done.changes] == [
        ("setting widths", "(40, 20)", "(20, 10)"),
        ("setting depth", "4", "1"),
    ]
    assert torch.equal(torch.get_rng_state(), state)
    again, other = (
        scale_student(build, SETTINGS, {"widths": 0.5, "depth": 0.25}, TEACHER, X, seed=seed).model
        for seed in (1, 2)
    )
    assert torch.equal(done.model.get_parameter("0.weight"), again.get_parameter("0.weight"))
    assert not torch.equal(done.model.get_parameter("0.weight"), other.get_parameter("0.weight"))


def test_multiples_are_the_nearest_and_at_least_one() -> None:
    done = scale_student(build, SETTINGS, {"widths": 0.3}, TEACHER, X, multiple_of=8)
    assert shapes(done.model)[0] == (16, 6)  # 12 lies between 8 and 16: the larger
    assert shapes(done.model)[-1] == (3, 8)
    tiny = scale_student(build, SETTINGS, {"widths": 0.001, "depth": 0.001}, TEACHER, X)
    assert shapes(tiny.model) == [(1, 6), (1, 1), (3, 1)]


@pytest.mark.parametrize(
    ("multipliers", "kind", "words"),
    [
        ({"width": 0.5}, InputError, "no setting 'width'"),
        ({"widths": 0.0}, InputError, "factor"),
        ({"widths": math.nan}, InputError, "factor"),
        ({"classes": 0.5}, ModelError, "teacher's"),
    ],
)
def test_what_cannot_be_multiplied_is_refused(multipliers: dict[str, float], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        scale_student(build, SETTINGS, multipliers, TEACHER, X)


def test_settings_that_are_no_numbers_and_builders_that_fail() -> None:
    with pytest.raises(InputError, match="no whole number"):
        scale_student(build, {**SETTINGS, "depth": 1.5}, {"depth": 0.5}, TEACHER, X)
    with pytest.raises(ModelError, match="TypeError"):
        scale_student(build, {**SETTINGS, "colour": 3}, {"depth": 0.5}, TEACHER, X)
    with pytest.raises(InputError, match="multiple_of"):
        scale_student(build, SETTINGS, {"depth": 0.5}, TEACHER, X, multiple_of=0)


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 3), math.nan)


def test_ones_own_student_is_copied_once_it_fits() -> None:
    own = nn.Linear(6, 3).train()
    done = own_student(own, TEACHER, X)
    assert done.model is not own
    assert own.training
    assert not done.model.training
    for wrong, words in (
        (nn.Linear(6, 4), "output is"),
        (nn.Linear(5, 3), "cannot be run"),
        (Broken(), "NaN"),
    ):
        with pytest.raises(ModelError, match=words):
            own_student(wrong, TEACHER, X)
    with pytest.raises(InputError, match="Module"):
        own_student("net", TEACHER, X)  # type: ignore[arg-type]
