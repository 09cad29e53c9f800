"""Remove weights: set the least important ones to zero, exactly as many as asked for."""

from tinypress.prune.allocation import Allocation, erk_counts, lamp_scores
from tinypress.prune.control import prune_weights_at_random
from tinypress.prune.gradual import cubic_sparsity, gradual_pruning, prune_gradually
from tinypress.prune.keep import keep_zeros
from tinypress.prune.magnitude import prune_weights_by_magnitude
from tinypress.prune.model import prune_model_by_magnitude
from tinypress.prune.movement import movement_pruning
from tinypress.prune.rounds import find_ticket, prune_in_rounds, sparsity_of_rounds
from tinypress.prune.sparsity import calculate_sparsity
from tinypress.prune.wanda import prune_model_by_wanda

__all__ = [
    "Allocation",
    "calculate_sparsity",
    "cubic_sparsity",
    "erk_counts",
    "find_ticket",
    "gradual_pruning",
    "keep_zeros",
    "lamp_scores",
    "movement_pruning",
    "prune_gradually",
    "prune_in_rounds",
    "prune_model_by_magnitude",
    "prune_model_by_wanda",
    "prune_weights_at_random",
    "prune_weights_by_magnitude",
    "sparsity_of_rounds",
]
