"""Fewer bits: the weights of a layer, or a whole network with its activations."""

from tinypress.quantize.layer import dequantize_layer_weights, quantize_layer_weights
from tinypress.quantize.model import quantize_model
from tinypress.quantize.weights_only import quantize_weights

__all__ = ["dequantize_layer_weights", "quantize_layer_weights", "quantize_model", "quantize_weights"]
