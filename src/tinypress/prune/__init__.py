"""Remove weights: set the least important ones to zero, exactly as many as asked for."""

from tinypress.prune.control import prune_weights_at_random
from tinypress.prune.keep import keep_zeros
from tinypress.prune.magnitude import prune_weights_by_magnitude
from tinypress.prune.model import prune_model_by_magnitude
from tinypress.prune.sparsity import calculate_sparsity

__all__ = [
    "calculate_sparsity",
    "keep_zeros",
    "prune_model_by_magnitude",
    "prune_weights_at_random",
    "prune_weights_by_magnitude",
]
