"""Modules: QLinear, and quantize_ which puts it into a model."""

from .qlinear import QLinear
from .quantize_model import quantize_
from .report import LayerReport

__all__ = ["LayerReport", "QLinear", "quantize_"]
