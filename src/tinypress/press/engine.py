"""The four techniques as one frozen argument. Ours is the default; a learner's module makes another."""

from __future__ import annotations

from dataclasses import dataclass

from tinypress.distill import DistillationLoss
from tinypress.protocols import MakeLoss, Quantize, Score, Shrink
from tinypress.prune import prune_weights_by_magnitude
from tinypress.quantize import quantize_layer_weights
from tinypress.shrink import prune_layer_neurons


@dataclass(frozen=True)
class Engine:
    """What prunes, quantizes, teaches and shrinks. ``name`` tells runs of different engines apart."""

    score: Score = prune_weights_by_magnitude
    quantize: Quantize = quantize_layer_weights
    loss: MakeLoss = DistillationLoss
    shrink: Shrink = prune_layer_neurons
    name: str = "tinypress"
