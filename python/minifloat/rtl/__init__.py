"""Hardware: emits designs from a plan, simulates them, and reads synthesis reports."""

from .constant import ConstantLayer
from .dot import Dot
from .emit import emit
from .gemm import Gemm
from .layer import Layer
from .mac import Mac, Pair, mac
from .requantize import Requantize

__all__ = ["ConstantLayer", "Dot", "Gemm", "Layer", "Mac", "Pair", "Requantize", "emit", "mac"]
