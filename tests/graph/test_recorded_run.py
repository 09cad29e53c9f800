"""Where operations run, and whether two networks without values do the same."""

import threading
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from tinypress.graph.empty import emptied
from tinypress.graph.record import Run, record, record_once


class Scaled(nn.Module):
    """Two layers and what lies between; ``ran`` counts how often the second ran, over all copies."""

    ran: ClassVar[list[int]] = []

    def __init__(self, between: nn.Module, factor: object = 2.0) -> None:
        super().__init__()
        self.first, self.between, self.second = nn.Linear(4, 6), between, nn.Linear(6, 3)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.between(self.first(x)) * self.factor
        self.ran.append(1)
        return self.second(hidden)


def recorded(model: nn.Module) -> Run:
    run = record_once(model, (torch.randn(2, 4),))
    assert run is not None
    return run


def without_values(model: nn.Module) -> nn.Module:
    return emptied(model, ())[0]


def test_a_network_does_what_another_of_the_same_operations_does():
    run = recorded(Scaled(nn.ReLU()))
    assert run.is_of(run.empty.network)
    assert run.is_of(without_values(Scaled(nn.ReLU())))


@pytest.mark.parametrize(
    "other",
    [
        Scaled(nn.ReLU(), 3.0),
        Scaled(nn.ReLU(), torch.tensor(2.0)),
        Scaled(nn.Sigmoid()),
        Scaled(nn.Identity()),
        Scaled(nn.Sequential(nn.ReLU(), nn.Dropout(), nn.ReLU())),
    ],
    ids=["a number", "a constant", "an operation", "fewer", "more"],
)
def test_another_operation_or_number_is_noticed_before_what_follows_runs(other):
    run = recorded(Scaled(nn.ReLU()))
    Scaled.ran.clear()
    assert not run.is_of(without_values(other))
    assert (
        not Scaled.ran or other.factor is not run.empty.network.factor
    )  # a constant is read where it is used


def test_constants_of_other_values_are_other_operations():
    one, other = (Scaled(nn.ReLU(), torch.full((6,), value)) for value in (1.0, 2.0))
    run = recorded(one)
    assert run.is_of(without_values(one))
    assert not run.is_of(without_values(other))


def test_what_is_left_out_at_the_end_is_noticed():
    class Longer(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    assert not recorded(Longer(nn.ReLU())).is_of(without_values(Scaled(nn.ReLU())))
    assert not recorded(Scaled(nn.ReLU())).is_of(without_values(Longer(nn.ReLU())))


def test_a_run_of_other_operations_is_none():
    run = recorded(Scaled(nn.ReLU()))
    assert record_once(Scaled(nn.Sigmoid()), (torch.randn(2, 4),), like=run.nodes) is None
    assert record_once(Scaled(nn.ReLU()), (torch.randn(2, 4),), like=run.nodes) is not None


class Catching(nn.Module):
    """Runs a layer that fails, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong, self.right = nn.Sequential(nn.Module()), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        try:
            self.wrong(x)
        except NotImplementedError:
            x = x + 1
        return self.right(x)


class Beside(nn.Module):
    """Runs a layer in another thread, which is inside it while this one computes."""

    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        inside, done = threading.Event(), threading.Event()

        class Waiting(nn.Module):
            def forward(self) -> None:
                inside.set()
                done.wait(5)

        thread = threading.Thread(target=Waiting())
        thread.start()
        inside.wait(5)
        x = x + 1
        done.set()
        thread.join()
        return self.right(x)


@pytest.mark.parametrize("model", [Catching(), Beside()], ids=["caught", "a thread"])
def test_operations_are_where_they_run(model):
    recording = record(model.eval(), (torch.randn(2, 4),))
    assert recording is not None
    calls = [(node.label, node.module) for node in recording if node.kind == "call"]
    assert calls == [("aten.add", ""), ("aten.linear", "right")]


def test_nothing_is_left_behind_in_torch_after_a_recording():
    before = nn.Module.__call__
    assert record(Scaled(nn.ReLU()), (torch.randn(2, 4),)) is not None
    assert nn.Module.__call__ is before
    assert record(Scaled(nn.ReLU()), (torch.randn(2, 5),)) is None
    assert nn.Module.__call__ is before


def test_two_threads_record_one_after_the_other():
    before, found = nn.Module.__call__, {}

    def work(name: str) -> None:
        for _ in range(20):
            recording = record(Catching(), (torch.randn(2, 4),))
            assert recording is not None
            found.setdefault(name, set()).add(tuple(node.module for node in recording))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert nn.Module.__call__ is before
    assert found["a"] == found["b"]
    assert len(found["a"]) == 1
