"""An archive, opened to be run in PyTorch."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from torch import nn

from tinypress.archive import write_archive
from tinypress.errors import ArtifactError, InputError, ModelError
from tinypress.facts import Compressed
from tinypress.protocols import Runner
from tinypress.runtimes.archive import open_archive


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _stock():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


class Pair(nn.Module):
    def __init__(self, both=False):
        super().__init__()
        self.layer, self.both = nn.Bilinear(3, 2, 4), both

    def forward(self, left, right):
        out = self.layer(left, right)
        return (out, out) if self.both else out


def _kept(folder, model):
    write_archive(folder / "a", Compressed(model))
    return folder / "a"


def test_it_runs_in_evaluation_mode_and_gives_what_the_network_gave(tmp_path):
    model = _stock()
    model[1].running_mean += 1
    path = _kept(tmp_path, model)
    samples = torch.randn(4, 6)
    torch.set_num_threads(1)
    with torch.inference_mode():
        expected = model.eval()(samples).numpy()
    runner: Runner = open_archive(path, _stock(), 1)
    assert runner.runtime == "torch"
    for _ in range(2):
        assert np.array_equal(runner.run([samples.numpy()]), expected)


def test_inputs_come_in_the_order_of_the_arguments_and_are_left_alone(tmp_path):
    model = Pair()
    runner = open_archive(_kept(tmp_path, model), Pair(), 1)
    left, right = np.ones((5, 3), np.float32), np.full((5, 2), 2, np.float32)
    left.flags.writeable = False
    expected = model(torch.ones(5, 3), torch.full((5, 2), 2.0)).detach().numpy()
    assert np.array_equal(runner.run([left, right]), expected)
    assert np.array_equal(left, np.ones((5, 3)))


def test_the_number_of_threads_is_set_on_opening(tmp_path):
    path = _kept(tmp_path, _stock())
    for threads in (2, 1):
        open_archive(path, _stock(), threads)
        assert torch.get_num_threads() == threads
    for threads in (0, True, 1.5):
        with pytest.raises(InputError, match=r"open_archive\(a, threads="):
            open_archive(path, _stock(), threads)


def test_more_than_one_output_is_refused(tmp_path):
    runner = open_archive(_kept(tmp_path, Pair(both=True)), Pair(both=True), 1)
    with pytest.raises(ModelError, match="the network returns a tuple"):
        runner.run([np.ones((1, 3), np.float32), np.ones((1, 2), np.float32)])


@pytest.mark.parametrize(
    "inputs", [[], [np.ones((1, 7), np.float32)], [np.ones((1, 6), np.float64)], [np.array(["a"])]]
)
def test_wrong_inputs_are_refused(tmp_path, inputs):
    runner = open_archive(_kept(tmp_path, _stock()), _stock(), 1)
    with pytest.raises(InputError, match=r"run\(\["):
        runner.run(inputs)


def test_another_stock_network_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="stock network"):
        open_archive(_kept(tmp_path, _stock()), Pair(), 1)


def test_the_runner_is_frozen(tmp_path):
    runner = open_archive(_kept(tmp_path, _stock()), _stock(), 1)
    with pytest.raises(FrozenInstanceError):
        runner.runtime = "onnxruntime"
