"""How far a layer may be from the reference: not at all in exact kernels, a step in few places elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tinypress.errors import ShipError
from tinypress.quantize.fused import Fused
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


def test_a_softmax_may_be_one_step_off_in_a_quarter() -> None:
    softmax = Step("scores", helper.make_node("Softmax", ["x"], ["y"]), "y")
    assert _compared("file", softmax, *one_off(250), False).differing == 250
    with pytest.raises(ShipError, match="251 of 1000"):
        _compared("file", softmax, *one_off(251), False)


def test_floats_of_a_product_may_differ_by_rounding_and_those_of_an_lstm_by_a_step() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"])
    product = Step("a", node, "y", Fused("dynamic", (0,), ("x",), "y", "w"))
    ours = np.linspace(-1, 1, 1000, dtype=np.float32)
    assert _compared("file", product, ours, ours + np.float32(2e-7), True, integers=False).differing == 0
    for wrong in (ours + np.float32(3e-6), np.where(ours > 0.9, np.nan, ours).astype(np.float32)):
        with pytest.raises(ShipError, match="'a' does not compute what the plan says"):
            _compared("file", product, ours, wrong, True, integers=False)
    lstm = Step("r", node, "y", Fused("recurrent", (0,), ("x",), "y", "w"))
    moved = ours.copy()
    moved[:10] += np.float32(2 / 255)
    found = _compared("file", lstm, ours, moved, False, integers=False)
    assert (found.differing, found.most_steps) == (10, 1)
    moved[:11] += np.float32(4 / 255)
    with pytest.raises(ShipError, match="'r' does not compute"):
        _compared("file", lstm, ours, moved, False, integers=False)
