"""mf.save and mf.load: a model in one safetensors file, its quantized weights truly bit-packed. See file.py."""

from .loading import load
from .saving import save

__all__ = ["load", "save"]
