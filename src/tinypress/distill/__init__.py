"""Teaches a small network what a large one knows."""

from tinypress.distill.losses import DistillationLoss, MatchingLoss
from tinypress.distill.teach import train_with_distillation

__all__ = ["DistillationLoss", "MatchingLoss", "train_with_distillation"]
