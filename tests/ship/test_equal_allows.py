"""How far a layer may be from the reference: not at all in exact kernels, a step in few places elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tinypress.errors import ShipError
from tinypress.quantize.reference.program import Step
from tinypress.ship.equal import _compared

STEP = Step("conv1", helper.make_node("Conv", ["x", "w"], ["y"]), "y")


def one_off(places: int, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
    ours = np.zeros(1000, np.uint8)
    theirs = ours.copy()
    theirs[:places] += np.uint8(steps)
    return ours, theirs


def test_an_exact_layer_may_differ_nowhere() -> None:
    assert _compared("file", STEP, *one_off(0), True).differing == 0
    with pytest.raises(ShipError, match="'conv1' does not compute what the plan says: 1 of 1000"):
        _compared("file", STEP, *one_off(1), True)


def test_others_may_be_one_step_off_in_one_place_of_a_hundred() -> None:
    assert _compared("file", STEP, *one_off(10), False).differing == 10
    with pytest.raises(ShipError, match="11 of 1000"):
        _compared("file", STEP, *one_off(11), False)
    with pytest.raises(ShipError, match="by up to 2 steps"):
        _compared("file", STEP, *one_off(1, steps=2), False)
