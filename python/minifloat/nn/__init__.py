"""Modules: QLinear and QConv2d, and quantize_ which puts them into a model."""

from .qconv import QConv2d
from .qlinear import QLinear
from .quantize_model import quantize_
from .report import LayerReport

__all__ = ["LayerReport", "QConv2d", "QLinear", "quantize_"]
