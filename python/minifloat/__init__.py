"""minifloat: linear algebra in 1 to 8 bits, the same bits on every backend."""

from . import emulator
from .formats import Format, QuantSpec

__all__ = ["Format", "QuantSpec", "emulator"]
