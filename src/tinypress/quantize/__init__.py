"""Fewer bits: the weights of a layer, a whole network with or without its activations, or a checkpoint on disk."""

from tinypress.quantize.checkpoint import QuantizedCheckpoint, quantize_checkpoint
from tinypress.quantize.equalize import equalize_layers
from tinypress.quantize.layer import dequantize_layer_weights, quantize_layer_weights
from tinypress.quantize.learn_block import Reconstruction
from tinypress.quantize.mixed import MixedBits, choose_bits
from tinypress.quantize.model import quantize_model
from tinypress.quantize.qat import (
    QuantizedTraining,
    finish_training,
    prepare_training,
    train_quantized,
    training_hooks,
)
from tinypress.quantize.read_checkpoint import read_quantized_checkpoint, read_quantized_weights
from tinypress.quantize.reference import run_reference
from tinypress.quantize.sensitivity import LayerBits, measure_sensitivity
from tinypress.quantize.smooth import smooth_layers
from tinypress.quantize.weights_only import quantize_weights

__all__ = [
    "LayerBits",
    "MixedBits",
    "QuantizedCheckpoint",
    "QuantizedTraining",
    "Reconstruction",
    "choose_bits",
    "dequantize_layer_weights",
    "equalize_layers",
    "finish_training",
    "measure_sensitivity",
    "prepare_training",
    "quantize_checkpoint",
    "quantize_layer_weights",
    "quantize_model",
    "quantize_weights",
    "read_quantized_checkpoint",
    "read_quantized_weights",
    "run_reference",
    "smooth_layers",
    "train_quantized",
    "training_hooks",
]
