"""Metrics against plain loops, and what ``evaluate`` refuses."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypress.errors import DataError, InputError, ModelError
from tinypress.measure.metrics import METRICS, NamedMetric, r2
from tinypress.measure.quality import compute, evaluate, resolve_metric
from tinypress.task import Split


def metric(name):
    return next(m for m in METRICS if m.name == name)


def value(name, outputs, targets):
    return compute(metric(name), torch.as_tensor(outputs), torch.as_tensor(targets))


class Fake:
    """A runner that answers with ``function`` and notes the sizes of its batches."""

    runtime = "fake"

    def __init__(self, function):
        self.function, self.batches = function, []

    def run(self, inputs):
        self.batches.append(len(inputs[0]))
        return self.function(*inputs)


def one_hot(classes, count):
    return torch.eye(count)[classes]


labels = st.integers(2, 5).flatmap(
    lambda c: st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=40).map(
        lambda rows: (c, rows)
    )
)


@given(labels)
def test_accuracy_and_macro_f1_equal_plain_counting(case):
    classes, rows = case
    targets, predicted = [t for t, _ in rows], [p for _, p in rows]
    scores = []
    for k in range(classes):
        hit = sum(t == p == k for t, p in rows)
        false_positive = sum(p == k != t for t, p in rows)
        missed = sum(t == k != p for t, p in rows)
        if hit + false_positive + missed:
            scores.append(2 * hit / (2 * hit + false_positive + missed))
    outputs = one_hot(torch.tensor(predicted), classes)
    assert value("accuracy", outputs, targets) == pytest.approx(sum(t == p for t, p in rows) / len(rows))
    assert value("macro_f1", outputs, targets) == pytest.approx(sum(scores) / len(scores))


def test_the_average_of_f1_is_over_classes_not_samples():
    outputs = one_hot(torch.tensor([0] * 9 + [0]), 2)
    assert value("macro_f1", outputs, [0] * 9 + [1]) == pytest.approx((18 / 19) / 2)


@pytest.mark.parametrize(("name", "expected"), [("mae", 2.0), ("mse", 14 / 3), ("r2", 1 - 14 / 2)])
@pytest.mark.parametrize("column", [False, True])
def test_regression_metrics_never_broadcast_a_column_against_a_row(name, expected, column):
    outputs, targets = torch.tensor([2.0, 4.0, 6.0]), torch.tensor([1.0, 2.0, 3.0])
    assert value(name, outputs[:, None] if column else outputs, targets) == pytest.approx(expected)
    assert value(name, outputs, targets[:, None]) == pytest.approx(expected)


def test_errors_of_several_outputs_are_averaged_over_all():
    outputs, targets = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 8.0]])
    assert value("mae", outputs, targets) == pytest.approx(7 / 4)
    assert value("mse", outputs, targets) == pytest.approx(21 / 4)
    assert value("r2", outputs, targets) == pytest.approx(((1 - 1 / 4.5) + (1 - 20 / 32)) / 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_spearman_is_pearson_of_mean_ranks(rows):
    def ranks(values):
        return [sum(u < v for u in values) + (sum(u == v for u in values) + 1) / 2 for v in values]

    x, y = ranks([a for a, _ in rows]), ranks([b for _, b in rows])
    if len(set(x)) == 1 or len(set(y)) == 1:
        with pytest.raises(InputError, match="returned nan"):
            value("spearman", [float(a) for a, _ in rows], [float(b) for _, b in rows])
        return
    expected = np.corrcoef(x, y)[0, 1]
    assert value("spearman", [float(a) for a, _ in rows], [float(b) for _, b in rows]) == pytest.approx(
        expected
    )


def test_spearman_sees_order_only():
    x = torch.arange(1.0, 20.0)
    assert value("spearman", x, x**5) == pytest.approx(1.0)
    assert value("spearman", -x, x.exp()) == pytest.approx(-1.0)


def test_cosine_is_of_directions_and_of_rows():
    targets = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [1.0, 1.0]])
    outputs = torch.tensor([[5.0, 0.0], [7.0, 0.0], [-1.0, -1.0], [0.0, 0.0]])
    assert value("cosine", outputs, targets) == pytest.approx((1 + 0 - 1 + 0) / 4)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_retrieval_equals_a_plain_search(count, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(count, 3, generator=generator)
    outputs = targets + torch.randn(count, 3, generator=generator)
    hits = 0
    for i in range(count):
        near = [float(torch.dot(outputs[i], t) / outputs[i].norm() / t.norm()) for t in targets]
        hits += near.index(max(near)) == i
    assert value("retrieval_at_1", outputs, targets) == pytest.approx(hits / count)


def test_a_collapsed_embedding_finds_nothing():
    targets = torch.randn(8, 4)
    assert value("retrieval_at_1", torch.zeros(8, 4), targets) == 0.0
    assert value("retrieval_at_1", torch.ones(8, 4), torch.ones(8, 4)) == 0.0


def test_retrieval_over_more_rows_than_one_block():
    targets = torch.randn(2500, 16, generator=torch.Generator().manual_seed(0))
    assert value("retrieval_at_1", 3 * targets, targets) == 1.0
    shifted = targets.roll(1, 0)
    assert value("retrieval_at_1", shifted, targets) == 0.0


@pytest.mark.parametrize("known", [m for m in METRICS if m.per_sample], ids=lambda m: m.name)
def test_values_of_samples_average_to_the_metric(known):
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(50, 4, generator=generator)
    labelled = known.name in {"accuracy", "macro_f1"}
    targets = torch.randint(4, (50,), generator=generator) if labelled else outputs.roll(1, 1)
    per_sample = known.per_sample(outputs, targets)
    assert len(per_sample) == 50
    means = per_sample.mean(0)
    found = means if known.combine is None else known.combine(means)
    assert found.shape == ()
    assert float(found) == pytest.approx(known.function(outputs, targets))
    if known.proportion:
        assert set(per_sample.tolist()) <= {0.0, 1.0}


def test_r2_of_equal_targets_is_undefined_whatever_the_rounding():
    with pytest.raises(InputError, match=r"r2.*returned -inf"):
        value("r2", torch.rand(7), torch.full((7,), 0.1))
    square = math.nextafter(0.3 * 0.3, 1.0)  # what a sum of equal squares may come to
    assert r2(torch.tensor([0.5, 0.3, square], dtype=torch.float64)) == -math.inf


def test_evaluate_feeds_every_sample_once_and_in_order():
    x, y = torch.arange(10.0)[:, None], torch.arange(10.0, 20.0)
    runner = Fake(lambda a, b: a[:, 0] + b)
    found = evaluate(runner, Split((x, y), torch.arange(10.0) * 2 + 10), metric("mae"), batch_size=4)
    assert runner.batches == [4, 4, 2]
    assert found.outputs.dtype == torch.float32
    assert found.outputs.tolist() == [10.0 + 2 * i for i in range(10)]
    assert found.value == 0.0


def test_evaluate_takes_integers_and_arrays_that_cannot_be_written():
    def answer(x):
        scores = np.eye(3, dtype=np.int64)[x[:, 0].astype(int)]
        scores.flags.writeable = False
        return scores

    split = Split((torch.tensor([[0.0], [1.0], [2.0], [2.0]]),), torch.tensor([0, 1, 2, 0]))
    assert evaluate(Fake(answer), split, metric("accuracy")).value == 0.75


CLASSES = Split((torch.zeros(5, 2),), torch.tensor([0, 1, 2, 3, 1]))


def test_a_label_out_of_range_is_named_with_its_sample_and_the_classes():
    with pytest.raises(DataError, match=r"target of sample 3 is 3, but the network has 3 classes \(0 to 2\)"):
        evaluate(Fake(lambda x: np.zeros((len(x), 3), np.float32)), CLASSES, metric("accuracy"))
    below = Split(CLASSES.inputs, torch.tensor([0, -1, 0, 0, 0]))
    with pytest.raises(DataError, match="target of sample 1 is -1"):
        evaluate(Fake(lambda x: np.zeros((len(x), 3), np.float32)), below, metric("macro_f1"))


@pytest.mark.parametrize("targets", [torch.zeros(5), torch.zeros(5, 3), torch.zeros(5, 1, dtype=torch.int64)])
def test_targets_that_are_no_class_indices_are_refused(targets):
    with pytest.raises(DataError, match="not class indices"):
        evaluate(
            Fake(lambda x: np.zeros((len(x), 3))), Split((torch.zeros(5, 2),), targets), metric("accuracy")
        )


def test_outputs_that_are_no_class_scores_are_refused():
    with pytest.raises(DataError, match=r"outputs \[N, C\]"):
        evaluate(Fake(lambda x: np.zeros(len(x))), CLASSES, metric("accuracy"))


@pytest.mark.parametrize("answer", [np.zeros((1, 3)), np.zeros(()), np.zeros((6, 3))])
def test_a_runner_with_another_number_of_rows_is_refused(answer):
    with pytest.raises(DataError, match="5 samples gave an output of shape"):
        evaluate(Fake(lambda x: answer), CLASSES, metric("accuracy"))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_name_their_sample(bad):
    def answer(x):
        scores = np.ones((len(x), 4), np.float32)
        scores[1, 2] = scores[0, 0] = bad
        return scores

    split = Split((torch.zeros(6, 2),), torch.zeros(6, dtype=torch.int64))
    with pytest.raises(ModelError, match="output of sample 0 is NaN or infinite, as those of 6 samples"):
        evaluate(Fake(answer), split, metric("accuracy"), batch_size=2)


@pytest.mark.parametrize("result", [math.nan, math.inf, None, "0.5", torch.zeros(2), 1j])
def test_a_metric_without_a_finite_number_is_named(result):
    def odd_metric(outputs, targets):
        return result

    with pytest.raises(InputError, match=r"odd_metric\(.*the metric returned"):
        evaluate(Fake(lambda x: np.zeros((len(x), 4))), CLASSES, resolve_metric(odd_metric, True))


def test_a_metric_may_return_a_tensor_of_one():
    named = resolve_metric(lambda outputs, targets: torch.tensor([0.25]), False)
    assert evaluate(Fake(lambda x: np.zeros((len(x), 4))), CLASSES, named).value == 0.25
    assert (named.name, named.higher_is_better, named.unit) == ("<lambda>", False, "metric")


def test_batches_hold_at_least_one_sample():
    with pytest.raises(InputError, match="batch_size=0"):
        evaluate(Fake(lambda x: x), CLASSES, metric("mae"), batch_size=0)


@pytest.mark.parametrize(("typo", "nearest"), [("acuracy", "accuracy"), ("F1", "macro_f1"), ("rmse", "mse")])
def test_an_unknown_metric_names_the_nearest(typo, nearest):
    with pytest.raises(InputError, match=f"Did you mean '{nearest}'"):
        resolve_metric(typo, True)


def test_a_built_in_metric_knows_its_direction():
    assert resolve_metric("accuracy", True) is metric("accuracy")
    assert not resolve_metric("mae", True).higher_is_better
    assert not resolve_metric("mse", False).higher_is_better
    with pytest.raises(InputError, match="higher_is_better=False"):
        resolve_metric("accuracy", False)
    with pytest.raises(InputError, match="neither a name nor a function"):
        resolve_metric(3, True)


def test_directions_and_units():
    assert {m.name for m in METRICS if not m.higher_is_better} == {"mae", "mse"}
    assert {m.name for m in METRICS if m.unit == "points"} == {"accuracy", "macro_f1", "retrieval_at_1"}
    assert all(isinstance(m, NamedMetric) for m in METRICS)


@pytest.mark.parametrize("name", ["mae", "r2", "cosine", "spearman"])
def test_targets_of_another_shape_are_refused(name):
    with pytest.raises(DataError, match="differ in shape"):
        value(name, torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(DataError, match="differ in number"):
        value(name, torch.zeros(4, 3), torch.zeros(5, 3))


def test_spearman_takes_one_output():
    with pytest.raises(DataError, match="several outputs"):
        value("spearman", torch.zeros(4, 3), torch.zeros(4, 3))
