"""The circuits a product may use, and which of them fit a pair of operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import product
from .multiply import times, times_digits_narrow, times_digits_wide, times_narrow, times_rom
from .operand import Operand
from .shift import fine_bits, shift_onehot

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


def _both(w: Operand, a: Operand) -> bool:
    return _floats(w, a) == 2


def _narrow_significands(w: Operand, a: Operand) -> bool:
    return _both(w, a) and w.significand_bits <= 3 and a.significand_bits <= 3


def _far_shift(w: Operand, a: Operand) -> bool:
    """Whether one-hot selects differ from a plain shifter: more than two coarse positions."""
    u_bits = sum(x.significand_bits if x.kind == "float" else x.value_bits for x in (w, a))
    return _floats(w, a) > 0 and (w.max_shift + a.max_shift) >> fine_bits(u_bits) > 1


def _some_float(w: Operand, a: Operand) -> bool:
    return _floats(w, a) > 0


def _digit_rows(w: Operand, a: Operand) -> bool:
    """Rows of two bits times up to 6 bits; unlike if the factors have the same width."""
    return _both(w, a) and max(w.significand_bits, a.significand_bits) <= ROM_BITS


def _unlike_digit_rows(w: Operand, a: Operand) -> bool:
    return _digit_rows(w, a) and w.significand_bits != a.significand_bits


def _with_shifters(name: str, fits: Callable, multiply: Callable) -> list[Variant]:
    """A way to multiply significands, followed by either way to shift."""
    far = Variant(
        f"{name}-onehot", lambda w, a: fits(w, a) and _far_shift(w, a), product.magnitude(multiply, shift_onehot)
    )
    return [far, Variant(name, fits, product.magnitude(multiply))]


VARIANTS = {
    v.name: v
    for v in (
        Variant("rom", _small, product.rom),
        Variant("booth", lambda w, a: _floats(w, a) == 0, product.booth),
        Variant("mixed", lambda w, a: _floats(w, a) == 1, product.mixed),
        *_with_shifters("digits", _digit_rows, times_digits_narrow),
        *_with_shifters("digits-wide", _unlike_digit_rows, times_digits_wide),
        *_with_shifters("significand-rom", _narrow_significands, times_rom),
        *_with_shifters("rows", _some_float, times_narrow),
        *_with_shifters("multiply", _some_float, times),
        Variant("star", lambda w, a: _floats(w, a) == 0, product.star),
    )
}


def fitting(w: Operand, a: Operand) -> list[str]:
    """Names of the variants that can build the product of w and a, the default guess first."""
    return [v.name for v in VARIANTS.values() if v.fits(w, a)]
