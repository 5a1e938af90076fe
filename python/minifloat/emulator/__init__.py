"""The reference: slow, obvious and exact. Imports formats only; never calls a kernel."""

from .binary_coded import binary_coded, binary_coded_weight
from .linear import dequantize, float_bound, linear
from .quantize import Quantized, quantize

__all__ = ["Quantized", "binary_coded", "binary_coded_weight", "dequantize", "float_bound", "linear", "quantize"]
