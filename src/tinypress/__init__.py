"""Press a trained PyTorch network until it fits, and hand over the file that ships with a measured receipt."""

from tinypress.distill import DistillationLoss, train_with_distillation
from tinypress.errors import TinypressError
from tinypress.facts import Change, Compressed, Note, QuantizedWeight
from tinypress.measure.latency_table import LatencyTable, preferred_multiple, read_latency_table
from tinypress.measure.layer_latency import measure_layers
from tinypress.measure.weights import CompressionMetrics, ModelSize, ParameterCount
from tinypress.plan import Searched, search_architecture
from tinypress.press.compare import compare_compression_techniques, standard_recipes
from tinypress.press.engine import Engine
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.smaller import onnx_latency
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
    remove_layers,
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
    "LatencyTable",
    "ModelSize",
    "Note",
    "ParameterCount",
    "QuantizedWeight",
    "Receipt",
    "Recipe",
    "Schedule",
    "Searched",
    "Split",
    "Task",
    "TinypressError",
    "calculate_sparsity",
    "compare_compression_techniques",
    "compute_neuron_importance",
    "dequantize_layer_weights",
    "factorize_model",
    "find_task",
    "measure_layers",
    "onnx_latency",
    "preferred_multiple",
    "press",
    "prune_layer_neurons",
    "prune_model_by_magnitude",
    "prune_structured",
    "prune_weights_by_magnitude",
    "quantize_layer_weights",
    "quantize_model",
    "read_latency_table",
    "remove_layers",
    "search_architecture",
    "split_from",
    "standard_recipes",
    "train_with_distillation",
    "verify",
]
