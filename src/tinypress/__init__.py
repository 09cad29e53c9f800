"""Press a trained PyTorch network until it fits, and hand over the file that ships with a measured receipt."""

from tinypress.distill import DistillationLoss, train_with_distillation
from tinypress.errors import TinypressError
from tinypress.facts import Change, Compressed, Note, QuantizedWeight
from tinypress.measure.weights import CompressionMetrics, ModelSize, ParameterCount
from tinypress.press.compare import compare_compression_techniques, standard_recipes
from tinypress.press.engine import Engine
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.verify import verify
from tinypress.prune import calculate_sparsity, prune_model_by_magnitude, prune_weights_by_magnitude
from tinypress.quantize import (
    QuantizedCheckpoint,
    dequantize_layer_weights,
    quantize_checkpoint,
    quantize_layer_weights,
    quantize_model,
    quantize_weights,
    read_quantized_checkpoint,
    read_quantized_weights,
)
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
from tinypress.train.loop import Schedule

__all__ = [
    "Budget",
    "Change",
    "Compressed",
    "CompressionMetrics",
    "DistillationLoss",
    "Engine",
    "ModelSize",
    "Note",
    "ParameterCount",
    "QuantizedCheckpoint",
    "QuantizedWeight",
    "Receipt",
    "Recipe",
    "Schedule",
    "Split",
    "Task",
    "TinypressError",
    "calculate_sparsity",
    "compare_compression_techniques",
    "compute_neuron_importance",
    "dequantize_layer_weights",
    "factorize_model",
    "find_task",
    "press",
    "prune_layer_neurons",
    "prune_model_by_magnitude",
    "prune_structured",
    "prune_weights_by_magnitude",
    "quantize_checkpoint",
    "quantize_layer_weights",
    "quantize_model",
    "quantize_weights",
    "read_quantized_checkpoint",
    "read_quantized_weights",
    "split_from",
    "standard_recipes",
    "train_with_distillation",
    "verify",
]
