"""minifloat: linear algebra in 1 to 8 bits, the same bits on every backend."""

import torch  # noqa: F401  before the extension, which is linked against it

from . import emulator, nn, ops, ptq, rtl
from .checkpoint import load, save
from .formats import Format, QuantSpec
from .functional import backends, linear
from .nn import quantize_
from .ptq import calibrate
from .qtensor import QTensor, quantize

__all__ = [
    "Format",
    "QTensor",
    "QuantSpec",
    "backends",
    "calibrate",
    "emulator",
    "linear",
    "load",
    "nn",
    "ops",
    "ptq",
    "quantize",
    "quantize_",
    "rtl",
    "save",
]
