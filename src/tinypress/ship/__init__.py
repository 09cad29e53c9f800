"""Writes the file that ships."""

from tinypress.ship.from_onnx import QuantizedFile, quantize_onnx
from tinypress.ship.to_onnx import to_onnx, write_onnx

__all__ = ["QuantizedFile", "quantize_onnx", "to_onnx", "write_onnx"]
