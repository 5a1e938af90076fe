"""The specification: what each code means, and where scales live. Imports only the standard library and numpy."""

from .encoding import ROUNDINGS
from .format import Format
from .names import format_names, parse_format
from .quant_spec import PRESETS, SCALE_FORMATS, QuantSpec

__all__ = ["PRESETS", "ROUNDINGS", "SCALE_FORMATS", "Format", "QuantSpec", "format_names", "parse_format"]
