"""Every loss against its paper's equation summed by hand, and its gradient against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from tinypress.distill import (
    AttentionTransfer,
    BoundedRegression,
    CosineLoss,
    DecoupledLoss,
    DistillationLoss,
    FeatureMatching,
    InfoNCE,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    TokenCosine,
    TokenCrossEntropy,
    TokenDistillation,
    VirtualTeacher,
)
from tinypress.distill.decoupled import decoupled_parts
from tinypress.errors import DataError, InputError

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


LABELS = torch.tensor([0, 3, 1, 2, 3])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]])
WORDS = torch.where(MASK.bool(), torch.arange(15).view(5, 3) % 4, -100)


def matcher() -> FeatureMatching:
    return FeatureMatching(2, 3).double()


GRADIENTS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "soft": (lambda s: DistillationLoss(3.0, 0.6)(s, draw(5, 4, seed=1), LABELS), (5, 4)),
    "decoupled": (lambda s: DecoupledLoss(3.0, 1.0, 8.0)(s, draw(5, 4, seed=1), LABELS), (5, 4)),
    "hints": (lambda s: matcher()(s, draw(5, 3, 4, seed=1)), (5, 2, 4)),
    "attention": (lambda s: AttentionTransfer()(s, draw(5, 3, 4, seed=1)), (5, 2, 4)),
    "similarity": (lambda s: SimilarityPreserving()(s, draw(5, 3, seed=1)), (5, 4)),
    "distance": (lambda s: RelationalDistance()(s, draw(5, 3, seed=1)), (5, 4)),
    "angle": (lambda s: RelationalAngle()(s, draw(5, 3, seed=1)), (5, 4)),
    "cosine": (lambda s: CosineLoss()(s, draw(5, 4, seed=1)), (5, 4)),
    "infonce": (lambda s: InfoNCE(0.3)(s, draw(5, 4, seed=1)), (5, 4)),
    "tokens": (lambda s: TokenDistillation(2.0)(s, draw(5, 3, 4, seed=1), MASK), (5, 3, 4)),
    "words": (lambda s: TokenCrossEntropy()(s, WORDS), (5, 3, 4)),
    "hidden": (lambda s: TokenCosine()(s, draw(5, 3, 4, seed=1), MASK), (5, 3, 4)),
    "regression": (
        lambda s: BoundedRegression(0.5)(s, draw(5, 2, seed=1), draw(5, 2, seed=2)),
        (5, 2),
    ),
    "virtual": (lambda s: VirtualTeacher(0.9, 5.0, 0.4)(s, LABELS), (5, 4)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    loss, shape = GRADIENTS[name]
    student = draw(*shape, seed=9).requires_grad_()
    assert torch.autograd.gradcheck(loss, (student,), eps=1e-6, atol=1e-7)
    assert float(torch.autograd.grad(loss(student), student)[0].abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["decoupled", "attention", "similarity", "distance", "angle", "cosine"])
def test_what_equals_the_teacher_costs_nothing(name: str) -> None:
    same = draw(5, 4, 3)
    alike = {
        "decoupled": lambda: DecoupledLoss()(same[..., 0], same[..., 0], LABELS),
        "attention": lambda: AttentionTransfer()(same, 3 * same),  # scale is free
        "similarity": lambda: SimilarityPreserving()(same, 3 * same),
        "distance": lambda: RelationalDistance()(same, 3 * same + 1),
        "angle": lambda: RelationalAngle()(same, 3 * same + 1),
        "cosine": lambda: CosineLoss()(same, 3 * same),
    }
    assert float(alike[name]()) == pytest.approx(0.0, abs=1e-12)


def test_decoupled_parts_add_up_to_the_soft_targets() -> None:
    """KD = TCKD + (1 - p_target) NCKD for every sample (Zhao et al. 2022, eq. 6)."""
    student, teacher = draw(5, 4), draw(5, 4, seed=1)
    for row in range(5):
        one = slice(row, row + 1)
        target, others = decoupled_parts(student[one], teacher[one], LABELS[one], 2.0)
        sure = torch.softmax(teacher[row] / 2.0, 0)[LABELS[row]]
        whole = DistillationLoss(2.0, 1.0)(student[one], teacher[one], LABELS[one]) / 4
        torch.testing.assert_close(target + (1 - sure) * others, whole)
    target, others = decoupled_parts(student, teacher, LABELS, 2.0)
    found = DecoupledLoss(2.0, 0.5, 3.0)(student, teacher, LABELS)
    torch.testing.assert_close(found, 4 * (0.5 * target + 3.0 * others))


def test_hints_by_hand_and_the_projectors_gradient() -> None:
    loss = FeatureMatching(2, 3, channels="last").double()
    student, teacher = draw(5, 4, 2), draw(5, 4, 3, seed=1)
    expected = 0.5 * ((student @ loss.weight.T + loss.bias - teacher) ** 2).mean()
    found = loss(student, teacher)
    torch.testing.assert_close(found, expected)
    found.backward()  # type: ignore[no-untyped-call]
    apart = (student @ loss.weight.T + loss.bias - teacher).detach().flatten(0, 1)
    torch.testing.assert_close(loss.weight.grad, apart.T @ student.flatten(0, 1) / apart.numel())
    assert torch.equal(FeatureMatching(3, 3).weight, torch.eye(3))
    assert torch.equal(FeatureMatching(2, 3).weight, FeatureMatching(2, 3).weight)


def test_attention_by_hand() -> None:
    student, teacher = draw(2, 2, 3), draw(2, 4, 3, seed=1)
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        maps = []
        for x in (s, t):
            q = [sum(float(x[c, place]) ** 2 for c in range(len(x))) for place in range(3)]
            maps.append([v / math.sqrt(sum(u * u for u in q)) for v in q])
        total += 0.5 * math.dist(*maps)
    assert float(AttentionTransfer()(student, teacher)) == pytest.approx(total / 2)


def test_similarity_by_hand() -> None:
    student, teacher = draw(3, 2), draw(3, 4, seed=1)
    total = 0.0
    grams = []
    for x in (student, teacher):
        gram = [[float(a @ b) for b in x] for a in x]
        grams.append([[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in gram])
    for mine, theirs in zip(*grams, strict=True):
        total += sum((a - b) ** 2 for a, b in zip(mine, theirs, strict=True))
    assert float(SimilarityPreserving()(student, teacher)) == pytest.approx(total / 9)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def test_relations_by_hand() -> None:
    student, teacher = draw(4, 2), 5 * draw(4, 3, seed=1)
    pairs = list(permutations(range(4), 2))

    def distances(x: Tensor) -> list[float]:
        raw = [math.dist(x[i].tolist(), x[j].tolist()) for i, j in pairs]
        return [d / (sum(raw) / len(raw)) for d in raw]

    expected = [huber(a - b) for a, b in zip(distances(teacher), distances(student), strict=True)]
    assert float(RelationalDistance()(student, teacher)) == pytest.approx(sum(expected) / len(pairs))

    def cosine(x: Tensor, i: int, j: int, k: int) -> float:
        one, other = x[i] - x[j], x[k] - x[j]
        return float(one @ other / (one.norm() * other.norm()))

    triples = list(permutations(range(4), 3))
    angles = [huber(cosine(teacher, *t) - cosine(student, *t)) for t in triples]
    assert float(RelationalAngle()(student, teacher)) == pytest.approx(sum(angles) / len(triples))


def test_infonce_by_hand() -> None:
    student, teacher = draw(4, 3), draw(4, 3, seed=1)
    total = 0.0
    for i in range(4):
        powers = [math.exp(float(nn.functional.cosine_similarity(student[i], t, 0)) / 0.2) for t in teacher]
        total -= math.log(powers[i] / sum(powers))
    assert float(InfoNCE(0.2)(student, teacher)) == pytest.approx(total / 4)
    same = torch.ones(4, 3)
    assert float(InfoNCE()(same, same)) == pytest.approx(math.log(4))


def test_tokens_by_hand_and_padding_does_not_matter() -> None:
    student, teacher = draw(5, 3, 4), draw(5, 3, 4, seed=1)
    total, hidden, count = 0.0, 0.0, int(MASK.sum())
    for b in range(5):
        for t in range(3):
            if MASK[b, t]:
                p, q = torch.softmax(teacher[b, t] / 2, 0), torch.softmax(student[b, t] / 2, 0)
                total += 4 * float((p * (p / q).log()).sum()) / count
                hidden += (
                    1 - float(nn.functional.cosine_similarity(student[b, t], teacher[b, t], 0))
                ) / count
    assert float(TokenDistillation(2.0)(student, teacher, MASK)) == pytest.approx(total)
    assert float(TokenCosine()(student, teacher, MASK.bool())) == pytest.approx(hidden)
    noisy = torch.where(MASK[..., None].bool(), student, torch.full_like(student, math.nan))
    assert float(TokenDistillation(2.0)(noisy, teacher, MASK)) == pytest.approx(total)
    expected = nn.functional.cross_entropy(student.flatten(0, 1), WORDS.flatten(), ignore_index=-100)
    torch.testing.assert_close(TokenCrossEntropy()(student, WORDS), expected)
    assert float(TokenCrossEntropy()(student, torch.full((5, 3), -100))) == 0.0


def test_regression_is_bounded_by_the_teacher() -> None:
    targets = torch.zeros(3, 1, dtype=F64)
    student = torch.tensor([[1.0], [2.0], [3.0]], dtype=F64)
    teacher = torch.tensor([[2.0], [2.0], [1.0]], dtype=F64)
    # the first is nearer than its teacher, the second is not by a margin, the third is further off
    assert float(BoundedRegression(0.5)(student, teacher, targets)) == pytest.approx((1 + 4 + 9 * 1.5) / 3)
    found = BoundedRegression(0.5, margin=0.1)(student, teacher, targets)
    assert float(found) == pytest.approx((1 + 4 * 1.5 + 9 * 1.5) / 3)


def test_the_virtual_teacher_by_hand() -> None:
    student, total = draw(5, 4), 0.0
    for row, label in zip(student, LABELS.tolist(), strict=True):
        given = [0.9 if k == label else 0.1 / 3 for k in range(4)]
        soft = [p ** (1 / 5.0) for p in given]
        q = torch.softmax(row / 5.0, 0).tolist()
        divergence = sum(p / sum(soft) * math.log(p / sum(soft) / b) for p, b in zip(soft, q, strict=True))
        total += 0.6 * -float(torch.log_softmax(row, 0)[label]) + 0.4 * divergence
    assert float(VirtualTeacher(0.9, 5.0, 0.4)(student, LABELS)) == pytest.approx(total / 5)


REFUSED: dict[str, Callable[[], object]] = {
    "temperature": lambda: DecoupledLoss(0.0),
    "beta": lambda: DecoupledLoss(beta=-1.0),
    "one class": lambda: DecoupledLoss()(draw(5, 1), draw(5, 1), torch.zeros(5, dtype=torch.int64)),
    "differ in shape": lambda: DecoupledLoss()(draw(5, 4), draw(5, 3), LABELS),
    "width is below": lambda: FeatureMatching(0, 3),
    "channels": lambda: FeatureMatching(2, 3, channels="middle"),
    "made for 2": lambda: matcher()(draw(5, 4, 4), draw(5, 3, 4)),
    "too few dimensions": lambda: matcher()(draw(5, 2, 4), draw(5, 3, 5)),
    "power": lambda: AttentionTransfer(0.0),
    "no places": lambda: AttentionTransfer()(draw(5, 2, 4), draw(5, 2, 5)),
    "same samples": lambda: SimilarityPreserving()(draw(5, 2), draw(4, 2)),
    "need 2": lambda: RelationalDistance()(draw(1, 2), draw(1, 2)),
    "need 3": lambda: RelationalAngle()(draw(2, 2), draw(2, 2)),
    "projector": lambda: CosineLoss()(draw(5, 2), draw(5, 3)),
    "margin": lambda: BoundedRegression(margin=-1.0),
    "correct": lambda: VirtualTeacher(1.0),
}
UNFIT: dict[str, Callable[[], object]] = {
    r"0\.\.3": lambda: DecoupledLoss()(draw(5, 4), draw(5, 4), LABELS + 1),
    "not one value a token": lambda: TokenDistillation()(draw(5, 3, 4), draw(5, 3, 4), MASK[:4]),
    "than 0 and 1": lambda: TokenDistillation()(draw(5, 3, 4), draw(5, 3, 4), MASK * 2),
    "every token is masked": lambda: TokenCosine()(draw(5, 3, 4), draw(5, 3, 4), MASK * 0),
    r"outside 0\.\.3": lambda: TokenCrossEntropy()(draw(5, 3, 4), WORDS.clamp_min(4)),
    "whole numbers": lambda: TokenCrossEntropy()(draw(5, 3, 4), draw(5, 3)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_means_nothing_is_refused(words: str) -> None:
    with pytest.raises(InputError, match=words):
        REFUSED[words]()


@pytest.mark.parametrize("words", UNFIT)
def test_data_that_do_not_fit_are_refused(words: str) -> None:
    with pytest.raises(DataError, match=words):
        UNFIT[words]()
