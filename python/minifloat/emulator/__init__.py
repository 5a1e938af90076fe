"""The reference: slow, obvious and exact. Imports formats only; never calls a kernel."""

from .linear import dequantize, float_bound, linear
from .quantize import Quantized, quantize

__all__ = ["Quantized", "dequantize", "float_bound", "linear", "quantize"]
