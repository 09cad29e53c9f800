"""Teaches a small network what a large one knows."""

from tinypress.distill.attention import AttentionTransfer
from tinypress.distill.bert import triple_loss
from tinypress.distill.cache import ask_teacher
from tinypress.distill.decoupled import DecoupledLoss
from tinypress.distill.embeddings import CosineLoss, InfoNCE
from tinypress.distill.features import captured
from tinypress.distill.hints import FeatureMatching
from tinypress.distill.independent import IndependentClasses
from tinypress.distill.lesson import (
    Lesson,
    OnBoth,
    OnFeatures,
    OnOutputs,
    OnTargets,
    OnTokens,
    Term,
    WeightedSum,
)
from tinypress.distill.losses import DistillationLoss, MatchingLoss
from tinypress.distill.regression import BoundedRegression
from tinypress.distill.relations import RelationalAngle, RelationalDistance, SimilarityPreserving
from tinypress.distill.students import own_student, scale_student
from tinypress.distill.teach import train_with_distillation
from tinypress.distill.teachers import MeanTeacher, VirtualTeacher, born_again
from tinypress.distill.tokens import TokenCosine, TokenCrossEntropy, TokenDistillation

__all__ = [
    "AttentionTransfer",
    "BoundedRegression",
    "CosineLoss",
    "DecoupledLoss",
    "DistillationLoss",
    "FeatureMatching",
    "IndependentClasses",
    "InfoNCE",
    "Lesson",
    "MatchingLoss",
    "MeanTeacher",
    "OnBoth",
    "OnFeatures",
    "OnOutputs",
    "OnTargets",
    "OnTokens",
    "RelationalAngle",
    "RelationalDistance",
    "SimilarityPreserving",
    "Term",
    "TokenCosine",
    "TokenCrossEntropy",
    "TokenDistillation",
    "VirtualTeacher",
    "WeightedSum",
    "ask_teacher",
    "born_again",
    "captured",
    "own_student",
    "scale_student",
    "train_with_distillation",
    "triple_loss",
]
