"""Modules: QLinear, QConv2d and QEmbedding, and quantize_ which puts them into a model."""

from .binary_coded_linear import BinaryCodedLinear
from .outlier_linear import OutlierLinear
from .qconv import QConv2d
from .qembedding import QEmbedding
from .qlinear import QLinear
from .quantize_model import quantize_
from .report import LayerReport

__all__ = ["BinaryCodedLinear", "LayerReport", "OutlierLinear", "QConv2d", "QEmbedding", "QLinear", "quantize_"]
