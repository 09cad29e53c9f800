"""The energy estimate, against the published figures added by hand."""

import pytest

from tinypress.errors import InputError
from tinypress.measure.energy import estimate_energy


@pytest.mark.parametrize(
    ("counts", "picojoules"),
    [
        ((1, 0, 0, 0), 0.23),
        ((0, 1, 0, 0), 4.6),
        ((0, 0, 4, 0), 640.0),
        ((0, 0, 0, 4), 5.0),
        ((1000, 10, 8, 2), 230 + 46 + 1280 + 2.5),
    ],
)
def test_each_operation_costs_its_published_energy(counts, picojoules):
    found = estimate_energy(*counts)
    assert found.value == pytest.approx(picojoules * 1e-9)  # millijoules
    assert found.method.startswith("estimate:")
    assert "Horowitz" in found.method


def test_a_count_below_zero_is_refused():
    with pytest.raises(InputError, match=r"estimate_energy\(1, 2, -3, 4\)"):
        estimate_energy(1, 2, -3, 4)
