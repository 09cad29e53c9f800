"""One thread in every test: results depend on the number to the last bit, and test machines are shared.
For the same reason no property test is judged by how fast its examples come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# Files that take minutes begin first, so that no worker is left with one of them at the end.
LONG = (
    "test_demo.py", "test_new_task.py", "test_kinds_of_task.py", "test_planted.py", "test_zoo.py", "test_class.py",
    "test_pipeline.py", "test_run.py", "test_runs.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


torch.set_num_threads(1)
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
