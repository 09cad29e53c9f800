"""Press a trained PyTorch network until it fits, and hand over the file that ships with a measured receipt."""

from tinypress.distill import (
    AttentionTransfer,
    BoundedRegression,
    CosineLoss,
    DecoupledLoss,
    DistillationLoss,
    FeatureMatching,
    InfoNCE,
    MatchingLoss,
    MeanTeacher,
    OnBoth,
    OnFeatures,
    OnOutputs,
    OnTargets,
    OnTokens,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    TokenCosine,
    TokenCrossEntropy,
    TokenDistillation,
    VirtualTeacher,
    WeightedSum,
    born_again,
    train_with_distillation,
    triple_loss,
)
from tinypress.errors import TinypressError
from tinypress.facts import Change, Compressed, Note, QuantizedWeight
from tinypress.measure.weights import CompressionMetrics, ModelSize, ParameterCount
from tinypress.press.compare import compare_compression_techniques, standard_recipes
from tinypress.press.engine import Engine
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.verify import verify
from tinypress.prune import calculate_sparsity, prune_model_by_magnitude, prune_weights_by_magnitude
from tinypress.quantize import dequantize_layer_weights, quantize_layer_weights, quantize_model
from tinypress.receipt import Receipt
from tinypress.shrink import (
    Budget,
    compute_neuron_importance,
    factorize_model,
    prune_layer_neurons,
    prune_structured,
)
from tinypress.task import Split, Task, split_from
from tinypress.tasks.find import find_task
from tinypress.train import Checkpoint, Hook, Schedule, accelerated, fit, reestimate_batch_norm, supervised

__all__ = [
    "AttentionTransfer",
    "BoundedRegression",
    "Budget",
    "Change",
    "Checkpoint",
    "Compressed",
    "CompressionMetrics",
    "CosineLoss",
    "DecoupledLoss",
    "DistillationLoss",
    "Engine",
    "FeatureMatching",
    "Hook",
    "InfoNCE",
    "MatchingLoss",
    "MeanTeacher",
    "ModelSize",
    "Note",
    "OnBoth",
    "OnFeatures",
    "OnOutputs",
    "OnTargets",
    "OnTokens",
    "ParameterCount",
    "QuantizedWeight",
    "Receipt",
    "Recipe",
    "RelationalAngle",
    "RelationalDistance",
    "Schedule",
    "SimilarityPreserving",
    "Split",
    "Task",
    "TinypressError",
    "TokenCosine",
    "TokenCrossEntropy",
    "TokenDistillation",
    "VirtualTeacher",
    "WeightedSum",
    "accelerated",
    "born_again",
    "calculate_sparsity",
    "compare_compression_techniques",
    "compute_neuron_importance",
    "dequantize_layer_weights",
    "factorize_model",
    "find_task",
    "fit",
    "press",
    "prune_layer_neurons",
    "prune_model_by_magnitude",
    "prune_structured",
    "prune_weights_by_magnitude",
    "quantize_layer_weights",
    "quantize_model",
    "reestimate_batch_norm",
    "split_from",
    "standard_recipes",
    "supervised",
    "train_with_distillation",
    "triple_loss",
    "verify",
]
