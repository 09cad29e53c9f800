"""Remove neurons: structured pruning that makes a network smaller in every runtime."""

from tinypress.shrink.budget import Budget
from tinypress.shrink.factorize import factorize_model
from tinypress.shrink.groups import Group, Slice, find_groups
from tinypress.shrink.importance import Importance, compute_neuron_importance
from tinypress.shrink.neurons import prune_layer_neurons, shrink_model
from tinypress.shrink.saliency import OF_THE_LOSS
from tinypress.shrink.structured import prune_structured

__all__ = [
    "OF_THE_LOSS",
    "Budget",
    "Group",
    "Importance",
    "Slice",
    "compute_neuron_importance",
    "factorize_model",
    "find_groups",
    "prune_layer_neurons",
    "prune_structured",
    "shrink_model",
]
