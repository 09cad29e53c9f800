"""Writes the file that ships."""

from tinypress.ship.from_onnx import QuantizedFile, quantize_onnx
from tinypress.ship.signs import read_exact_on
from tinypress.ship.to_onnx import to_onnx, write_onnx

__all__ = ["QuantizedFile", "quantize_onnx", "read_exact_on", "to_onnx", "write_onnx"]
