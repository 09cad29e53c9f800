"""Teaching with several losses at once: features through hooks, projectors, the cache, teachers of other kinds."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tinypress.distill import (
    AttentionTransfer,
    CosineLoss,
    DistillationLoss,
    FeatureMatching,
    Lesson,
    MeanTeacher,
    OnFeatures,
    OnOutputs,
    OnTargets,
    OnTokens,
    TokenDistillation,
    VirtualTeacher,
    WeightedSum,
    ask_teacher,
    born_again,
    captured,
    train_with_distillation,
    triple_loss,
)
from tinypress.errors import InputError, ModelError, RunError
from tinypress.prune import keep_zeros, prune_model_by_magnitude
from tinypress.task import Split
from tinypress.train import Checkpoint, Schedule

FAST = Schedule(epochs=3, learning_rate=0.02, batch_size=16)


def network(width: int, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv1d(2, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * width, 3)
        ).eval()


def data(samples: int, seed: int) -> Split:
    x = torch.randn(samples, 2, 6, generator=torch.Generator().manual_seed(seed))
    return Split((x,), torch.bucketize(x.sum((1, 2)), torch.tensor([-1.0, 1.0])))


TRAIN, VALIDATION = data(60, 1), data(30, 2)


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(x, theirs[name]) for name, x in one.state_dict().items())


def combined(student: int = 4, teacher: int = 8) -> WeightedSum:
    return WeightedSum(
        {
            "soft": (0.5, DistillationLoss(4.0, 1.0)),
            "labels": (1.0, OnTargets(nn.functional.cross_entropy)),
            "hint": (2.0, OnFeatures({"0": FeatureMatching(student, teacher)})),
            "places": (3.0, OnFeatures(AttentionTransfer())),
        }
    )


def test_the_sum_is_one_loss_that_reports_its_parts() -> None:
    loss = combined(2, 3)
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    features = {"0": (torch.randn(5, 2, 4), torch.randn(5, 3, 4))}
    lesson = Lesson(student, teacher, torch.tensor([0, 1, 2, 0, 1]), (), features)
    total = float(loss(lesson).detach())
    assert list(loss.values) == ["soft", "labels", "hint", "places"]
    hint = loss.terms[2]
    assert isinstance(hint, OnFeatures)
    assert loss.values["soft"] == float(DistillationLoss(4.0, 1.0)(student, teacher, lesson.targets))
    assert loss.values["labels"] == float(nn.functional.cross_entropy(student, lesson.targets))
    assert loss.values["places"] == float(AttentionTransfer()(*features["0"]))
    assert total == pytest.approx(
        sum(weight * loss.values[name] for name, weight in zip(loss.values, (0.5, 1, 2, 3), strict=True))
    )


def test_features_and_projectors_are_learnt_and_thrown_away() -> None:
    student, teacher, loss = network(4), network(8, 1), combined()
    before = [copy.deepcopy(part.state_dict()) for part in (student, teacher, loss)]
    done = train_with_distillation(
        student, teacher, TRAIN, VALIDATION, loss=loss, features={"0": "0"}, schedule=FAST
    )
    assert type(done.model) is nn.Sequential
    assert set(done.model.state_dict()) == set(student.state_dict())
    for part, was in zip((student, teacher, loss), before, strict=True):
        assert all(torch.equal(x, was[name]) for name, x in part.state_dict().items())
    for model in (student, teacher, done.model):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    parts = {change.what: change for change in done.changes}
    assert float(parts["loss part 'hint'"].now) < float(parts["loss part 'hint'"].was)
    assert parts["distillation steps"].now == 12
    again = train_with_distillation(
        student, teacher, TRAIN, VALIDATION, loss=combined(), features={"0": "0"}, schedule=FAST
    )
    assert same(done.model, again.model)
    plain = train_with_distillation(student, teacher, TRAIN, VALIDATION, schedule=FAST)
    assert not same(done.model, plain.model)


def test_zeros_of_a_pruned_student_stay_beside_a_projector(tmp_path: Path) -> None:
    pruned = prune_model_by_magnitude(network(4), 0.5)
    done = train_with_distillation(
        pruned,
        network(8, 1),
        TRAIN,
        VALIDATION,
        loss=combined(),
        features={"0": "0"},
        schedule=FAST,
        after_step=lambda model: keep_zeros(model, pruned.pruned),
        checkpoint=Checkpoint(tmp_path / "state", 0.0),
    )
    for name in pruned.pruned:
        was, now = pruned.model.get_parameter(name), done.model.get_parameter(name)
        assert bool((now[was == 0] == 0).all())
        assert bool((now[was != 0] != was[was != 0]).any())


def test_a_training_goes_on_with_the_losses_that_it_began_with(tmp_path: Path) -> None:
    place = Checkpoint(tmp_path / "state")

    def teach(temperature: float, weight: float) -> nn.Module:
        loss = WeightedSum(
            {"soft": (weight, DistillationLoss(temperature)), "own": (1.0, OnOutputs(CosineLoss()))}
        )
        return train_with_distillation(
            network(4), network(8), TRAIN, VALIDATION, loss=loss, schedule=FAST, checkpoint=place
        ).model

    assert same(teach(4.0, 1.0), teach(4.0, 1.0))
    for other in ((3.0, 1.0), (4.0, 0.5)):
        with pytest.raises(RunError, match="differs in work"):
            teach(*other)


def test_captured_sees_layers_and_leaves_nothing_behind() -> None:
    model = network(4)
    with captured(model, ["0", "3"]) as found:
        out = model(TRAIN.inputs[0])
        assert torch.equal(found["3"], out)
        kept = found["0"]
    torch.testing.assert_close(kept, model[0](TRAIN.inputs[0]))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(InputError, match="no layer 'O'"), captured(model, ["O"]):
        pass
    with pytest.raises(RuntimeError, match="boom"), captured(model, ["0"]):
        raise RuntimeError("boom")
    assert not model[0]._forward_hooks

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(self.layer(x))
            return y

    with pytest.raises(ModelError, match="more than once"):
        ask_teacher(Twice(), (torch.zeros(1, 2),), ["layer"])
    with pytest.raises(ModelError, match="did not run"):
        ask_teacher(Twice(), (torch.zeros(1, 2),), ["idle"])


class Counting(nn.Module):
    """A teacher that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.asked = network(8, 1), 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        out: Tensor = self.net(x)
        return out


def test_the_teachers_answers_are_kept_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    teacher = Counting()
    fresh = ask_teacher(teacher, TRAIN.inputs, ["net.0"])
    first = ask_teacher(teacher, TRAIN.inputs, ["net.0"], cache=tmp_path)
    asked = teacher.asked
    again = ask_teacher(teacher, TRAIN.inputs, ["net.0"], cache=tmp_path)
    assert teacher.asked == asked
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(fresh, first, again, strict=True))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        mended = ask_teacher(teacher, TRAIN.inputs, ["net.0"], cache=tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(fresh, mended, strict=True))
        assert file.read_bytes() == whole
    assert teacher.asked == asked + 2


def test_other_weights_data_or_layers_are_other_answers(tmp_path: Path) -> None:
    ask_teacher(network(4), TRAIN.inputs, cache=tmp_path)
    ask_teacher(network(4, 1), TRAIN.inputs, cache=tmp_path)
    ask_teacher(network(4), VALIDATION.inputs, cache=tmp_path)
    ask_teacher(network(4), TRAIN.inputs, ["0"], cache=tmp_path)
    other = network(4)
    other[1] = nn.Tanh()  # the same weights
    assert not torch.equal(ask_teacher(other, TRAIN.inputs, cache=tmp_path)[0], network(4)(TRAIN.inputs[0]))
    assert len(list(tmp_path.iterdir())) == 5
    one = train_with_distillation(network(4), other, TRAIN, VALIDATION, schedule=FAST, cache=tmp_path)
    assert same(one.model, train_with_distillation(network(4), other, TRAIN, VALIDATION, schedule=FAST).model)


def test_several_teachers_are_one() -> None:
    x, teachers = TRAIN.inputs[0], [network(4), network(8, 1)]
    one, other = (teacher(x).detach() for teacher in teachers)
    torch.testing.assert_close(MeanTeacher(teachers, [1, 3])(x).detach(), 0.25 * one + 0.75 * other)
    mean = MeanTeacher(teachers, of="probabilities")(x).detach()
    torch.testing.assert_close(torch.softmax(mean, 1), (torch.softmax(one, 1) + torch.softmax(other, 1)) / 2)
    alone = MeanTeacher(teachers, [0, 2], of="probabilities")(x).detach()
    torch.testing.assert_close(torch.softmax(alone, 1), torch.softmax(other, 1))
    train_with_distillation(network(4), MeanTeacher(teachers), TRAIN, VALIDATION, schedule=FAST)
    with pytest.raises(InputError, match="one weight for each"):
        MeanTeacher(teachers, [1.0])
    with pytest.raises(InputError, match="negative"):
        MeanTeacher(teachers, [0.0, 0.0])
    with pytest.raises(InputError, match="shapes"):
        MeanTeacher([nn.Linear(2, 2), nn.Linear(2, 3)])(torch.zeros(1, 2))


def test_without_a_teacher_and_from_the_own_past() -> None:
    loss = WeightedSum({"virtual": (1.0, OnTargets(VirtualTeacher()))})
    done = train_with_distillation(network(4), network(8), TRAIN, VALIDATION, loss=loss, schedule=FAST)
    other = train_with_distillation(network(4), network(8, 1), TRAIN, VALIDATION, loss=loss, schedule=FAST)
    assert same(done.model, other.model)  # it does not depend on the teacher
    born = born_again(
        lambda: nn.Sequential(*network(4)), network(8), TRAIN, VALIDATION, generations=2, schedule=FAST
    )
    assert len(born) == 2
    direct = train_with_distillation(
        network(4),
        born[0].model,
        TRAIN,
        VALIDATION,
        schedule=Schedule(epochs=3, learning_rate=0.02, batch_size=16, seed=2),
    )
    assert same(born[1].model, direct.model)
    with pytest.raises(InputError, match="generations=0"):
        born_again(lambda: network(4), network(4), TRAIN, VALIDATION, generations=0)


class Words(nn.Module):
    """A tiny language model of two inputs: words and attention mask."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed, self.block, self.head = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.block(self.embed(words))) * mask[..., None])
        return out


def test_distilberts_triple_loss_teaches_words() -> None:
    words = torch.randint(0, 7, (40, 5), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(5) < torch.arange(1, 41)[:, None] % 5 + 1).long()
    labels = torch.where(mask.bool() & (words > 2), words, -100)
    split = Split((words, mask), labels)
    loss = triple_loss("block", temperature=2.0)
    assert loss.weights == {"soft": 5.0, "hard": 2.0, "cosine": 1.0}
    done = train_with_distillation(
        Words(0), Words(1), split, split, loss=loss, features={"block": "block"}, schedule=FAST
    )
    parts = {c.what: (float(c.was), float(c.now)) for c in done.changes[1:]}
    assert all(now < was for was, now in parts.values())
    inputs = (words, mask)
    pair = (Words(0)(*inputs), Words(1)(*inputs))
    lesson = Lesson(*pair, labels, inputs, {"block": (torch.ones(40, 5, 2), torch.ones(40, 5, 2))})
    found = loss.parts(lesson)
    torch.testing.assert_close(found["soft"], TokenDistillation(2.0)(*pair, mask))


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (OnFeatures(CosineLoss()), "features of"),
        (OnFeatures({"9": CosineLoss()}), "features of"),
        (OnTokens(TokenDistillation(), 4), "1 inputs"),
        (OnTokens(TokenDistillation(), 0, "9"), "not captured"),
        (OnOutputs(lambda student, teacher: student - teacher), r"the loss returned shape \(16, 3\)"),
    ],
)
def test_terms_that_find_nothing_say_so(term: OnFeatures, words: str) -> None:
    loss = WeightedSum({"it": (1.0, term)})
    if words.startswith("the loss"):
        with pytest.raises((InputError, RuntimeError)):
            train_with_distillation(network(4), network(8), TRAIN, VALIDATION, loss=loss, schedule=FAST)
        return
    with pytest.raises(InputError, match=words):
        train_with_distillation(network(4), network(8), TRAIN, VALIDATION, loss=loss, schedule=FAST)


def test_sums_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="no term"):
        WeightedSum({})
    with pytest.raises(InputError, match="weight of 'a'"):
        WeightedSum({"a": (-1.0, DistillationLoss())})
    with pytest.raises(InputError, match="no layer is named"):
        OnFeatures({})
    with pytest.raises(InputError, match="no layer 'body'"):
        train_with_distillation(
            network(4), network(8), TRAIN, VALIDATION, loss=combined(), features={"0": "body"}, schedule=FAST
        )
