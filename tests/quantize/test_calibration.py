"""Calibration samples that should not be used are named, and good ones are left in peace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import DataError
from tinypress.facts import Compressed
from tinypress.quantize import quantize_model
from tinypress.quantize.calibration import judge_calibration
from tinypress.task import Split, Task
from tinypress.tasks.find import find_task


def pictures(count: int, seed: int) -> Split:
    """Smooth waves of 4 classes: [N, 3, 16, 16], each channel with a mean and spread of its own."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.linspace(0, 6.28, 16)
    start = 6.28 * torch.rand(count, 3, 1, 1, generator=generator)
    labels = torch.arange(count) % 4
    waves = torch.sin(place[:, None] + (labels.view(-1, 1, 1, 1) + 1) * place / 2 + start)
    return Split((waves * torch.tensor([1.0, 0.5, 2.0]).view(3, 1, 1) + 0.3,), labels)


TRAIN = pictures(400, 0)
GOOD = pictures(64, 1)


def network() -> Compressed:
    """A convolution and a batch norm that remembers TRAIN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=1.0), nn.ReLU())
    model.train()(*TRAIN.inputs)
    return Compressed(model.eval())


def with_inputs(change: Callable[[Tensor], Tensor]) -> Split:
    return Split((change(GOOD.inputs[0]),), GOOD.targets)


def noise(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(2))


def codes(samples: Split, reference: Split | None, of: Compressed | None = None) -> set[str]:
    return {note.code for note in judge_calibration("here", of or network(), samples, reference)}


@pytest.mark.parametrize("reference", [TRAIN, None], ids=["reference", "alone"])
@pytest.mark.parametrize(
    ("samples", "code"),
    [
        pytest.param(GOOD, None, id="good"),
        pytest.param(GOOD.take(slice(0, 31)), "TP220", id="few"),
        pytest.param(GOOD.take(GOOD.targets == 1), "TP221", id="one class"),
        pytest.param(GOOD.take(torch.arange(64) % 5), "TP222", id="repeated"),
        pytest.param(
            with_inputs(lambda x: x * (torch.arange(64) < 20).view(-1, 1, 1, 1)), "TP222", id="empty"
        ),
        pytest.param(with_inputs(lambda x: 255 * x), "TP223", id="larger"),
        pytest.param(with_inputs(lambda x: x / 255), "TP223", id="smaller"),
        pytest.param(with_inputs(lambda x: x + 3), "TP223", id="shifted"),
        pytest.param(with_inputs(noise), "TP224", id="noise"),
    ],
)
def test_each_fault_is_named(samples: Split, code: str | None, reference: Split | None) -> None:
    found = codes(samples, reference)
    assert found == set() if code is None else code in found


def test_uniform_noise_is_noise_too_and_scaled_noise_needs_a_reference() -> None:
    drawn = torch.rand(GOOD.inputs[0].shape, generator=torch.Generator().manual_seed(3))
    assert "TP224" in codes(Split((drawn,), GOOD.targets), None)
    scaled = with_inputs(lambda x: noise(x) * x.std((0, 2, 3), keepdim=True) + 0.3)
    assert codes(scaled, TRAIN) == {"TP224"}


def test_data_that_are_noise_by_nature_are_no_fault() -> None:
    train = Split((noise(TRAIN.inputs[0]),), TRAIN.targets)
    assert codes(with_inputs(noise), train) == set()


def test_pruned_weights_do_not_count_as_data_of_another_scale() -> None:
    before = network()
    weight = before.model.get_parameter("0.weight")
    with torch.no_grad():
        weight *= 0.1
    assert codes(GOOD, None, before) == {"TP223"}
    assert codes(GOOD, None, replace(before, pruned=frozenset({"0.weight"}))) == set()


def test_the_means_of_few_recordings_may_differ_by_chance() -> None:
    generator = torch.Generator().manual_seed(4)

    def recordings(count: int) -> Split:
        offset = torch.randn(count, 1, 1, generator=generator).repeat_interleave(64, 0)
        waves = torch.sin(torch.linspace(0, 9, 32)) * torch.rand(64 * count, 1, 1, generator=generator)
        return Split((offset + waves,), torch.zeros(64 * count), torch.arange(count).repeat_interleave(64))

    linear = Compressed(nn.Linear(32, 2))
    faults = sum("TP223" in codes(recordings(4), recordings(6), linear) for _ in range(40))
    assert faults <= 2
    far = recordings(4)
    assert "TP223" in codes(replace(far, inputs=(far.inputs[0] + 30,)), recordings(6), linear)


def test_words_that_training_never_had() -> None:
    generator = torch.Generator().manual_seed(5)

    def sentences(count: int, words: int) -> Split:
        tokens = 1 + (torch.rand(count, 12, generator=generator) ** 3 * words).long()
        tokens[:, 8:] = 0
        return Split((tokens, (tokens > 0).long()), torch.zeros(count))

    model = Compressed(nn.Linear(1, 1))
    train = sentences(400, 500)
    assert codes(sentences(64, 500), train, model) == set()
    foreign = sentences(64, 30_000)
    assert codes(Split((foreign.inputs[0] + 600, foreign.inputs[1]), foreign.targets), train, model) == {
        "TP224"
    }


def test_samples_that_teach_nothing_are_refused() -> None:
    same = Split((GOOD.inputs[0][:1].expand(8, -1, -1, -1),), torch.arange(8))
    with pytest.raises(DataError, match="here: all 8 calibration samples have the same input 1"):
        judge_calibration("here", network(), same)
    with pytest.raises(DataError, match=r"shapes \[\(3, 16, 8\)\], the reference \[\(3, 16, 16\)\]"):
        judge_calibration("here", network(), with_inputs(lambda x: x[..., :8]), TRAIN)


def test_an_input_that_never_changes_beside_one_that_does_is_no_fault() -> None:
    mask = torch.ones(64, 16)
    samples = Split((GOOD.inputs[0], mask), GOOD.targets)
    assert {note.code for note in judge_calibration("here", Compressed(nn.Linear(1, 1)), samples)} <= {
        "TP222"
    }


def test_quantizing_says_what_is_wrong_and_changes_nothing_in_the_network() -> None:
    model = nn.Sequential(*network().model, nn.Flatten(), nn.Linear(8 * 14 * 14, 4))
    done = quantize_model(
        model.train(), with_inputs(lambda x: 255 * x), (GOOD.inputs[0][:2],), reference=TRAIN
    )
    assert [note.code for note in done.notes] == ["TP223"]
    assert "mean 76.5" in done.notes[0].text
    assert "normalise them as in training" in done.notes[0].text
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.fixture(scope="module", params=["watch", "digits"])
def task(request: pytest.FixtureRequest) -> Task:
    return find_task(str(request.param))


@pytest.mark.parametrize("count", [32, 256])
def test_no_false_alarm_on_real_data(task: Task, count: int) -> None:
    assert task.train is not None
    for split in (task.train, task.validation, task.test):
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(count))[:count]
        for reference in (task.train, None):
            assert judge_calibration("here", Compressed(task.model), split.take(order), reference) == ()


def test_real_data_scaled_otherwise_are_found(task: Task) -> None:
    assert task.train is not None
    good = task.train.take(slice(0, None, 20))
    for factor in (255.0, 1 / 128):
        wrong = replace(good, inputs=(good.inputs[0] * factor,))
        for reference in (task.train, None):
            assert "TP223" in codes(wrong, reference, Compressed(task.model))
