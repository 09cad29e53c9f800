"""Writes the file that ships."""

from tinypress.ship.to_onnx import to_onnx, write_onnx

__all__ = ["to_onnx", "write_onnx"]
