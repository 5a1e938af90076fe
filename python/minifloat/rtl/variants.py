"""The circuits a product may use, and which of them fit a pair of operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import product
from .multiply import times, times_narrow, times_rom
from .operand import Operand

ROM_BITS = 6  # one LUT6 for each bit of the product
TABLE_ROM_BITS = 8  # tables have no structure to exploit, and four LUT6 with a multiplexer are still cheap


@dataclass(frozen=True)
class Variant:
    """name, when it applies, and the function of product.py (Module, Factors) -> Term."""

    name: str
    fits: Callable[[Operand, Operand], bool]
    build: Callable


def _floats(w: Operand, a: Operand) -> int:
    return (w.kind == "float") + (a.kind == "float")


def _small(w: Operand, a: Operand) -> bool:
    limit = TABLE_ROM_BITS if "table" in (w.kind, a.kind) else ROM_BITS
    return w.magnitude_bits + a.magnitude_bits <= limit


def _narrow_significands(w: Operand, a: Operand) -> bool:
    return _floats(w, a) == 2 and w.significand_bits <= 3 and a.significand_bits <= 3


VARIANTS = {
    v.name: v
    for v in (
        Variant("rom", _small, product.rom),
        Variant("significand-rom", _narrow_significands, product.magnitude(times_rom)),
        Variant("rows", lambda w, a: _floats(w, a) > 0, product.magnitude(times_narrow)),
        Variant("multiply", lambda w, a: _floats(w, a) > 0, product.magnitude(times)),
        Variant("mixed", lambda w, a: _floats(w, a) == 1, product.mixed),
        Variant("booth", lambda w, a: _floats(w, a) == 0, product.booth),
        Variant("star", lambda w, a: _floats(w, a) == 0, product.star),
    )
}


def fitting(w: Operand, a: Operand) -> list[str]:
    """Names of the variants that can build the product of w and a, the default guess first."""
    return [v.name for v in VARIANTS.values() if v.fits(w, a)]
