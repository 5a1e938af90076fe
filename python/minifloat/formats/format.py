"""A number format: what each stored code of 1 to 8 bits means. Everything else is derived from that table."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from . import encoding
from .arrays import like, to_numpy

SPECIALS = ("none", "ieee", "fn", "fnuz", "fnu")


@dataclass(frozen=True)
class Format:
    """A float, integer or codebook format of 1 to 8 bits.

    Attributes:
        name: canonical name, e.g. "e2m1", "int4", "nf4".
        kind: "float", "int" or "codebook".
        bits: width of one code.
        signed: whether negative values exist.
        exponent_bits, mantissa_bits, bias: the fields of a float format, None for others.
        special: which codes are not numbers. "none": all finite. "ieee": top exponent holds infinity and NaN.
            "fn": only the all-ones code of each sign is NaN. "fnuz": only the code of minus zero is NaN.
            "fnu": no zero, the all-ones code is NaN (e8m0fnu).
        table: values of a codebook in code order, None for others.
    """

    name: str
    kind: str
    bits: int
    signed: bool
    exponent_bits: int | None = None
    mantissa_bits: int | None = None
    bias: int | None = None
    special: str = "none"
    table: tuple[float, ...] | None = None

    @staticmethod
    def parse(name: str | Format) -> Format:
        """The format called `name`.

        Raises:
            ValueError: the name is unknown, ambiguous (e4m3) or out of range; the message says what would be right.
        """
        from .names import parse_format  # names builds Formats, so it imports this module

        return parse_format(name)

    @staticmethod
    def codebook(name: str, values) -> Format:
        """A format whose code i means values[i]; registered under `name` so that specs can use it.

        Args:
            name: a new name, lower-case letters, digits and underscores.
            values: 2 to 256 finite numbers that float32 holds exactly; any order.
        Raises:
            ValueError: bad name or values, or the name already means other values.
        """
        from .names import register_codebook

        return register_codebook(name, values)

    def __str__(self) -> str:
        return self.name

    @cached_property
    def values(self) -> np.ndarray:
        """float64, (2**bits,): the value of each code; NaN or infinity where the code is special or unassigned."""
        codes = range(1 << self.bits)
        if self.kind == "codebook":
            padding = [float("nan")] * (len(codes) - len(self.table))
            out = np.array([*self.table, *padding])
        elif self.kind == "int":
            half = 1 << (self.bits - 1)
            out = np.array([c - 2 * half if self.signed and c >= half else c for c in codes], dtype=np.float64)
        else:
            out = np.array([self._float_value(c) for c in codes])
        out.flags.writeable = False
        return out

    def _float_value(self, code: int) -> float:
        magnitude_bits = self.exponent_bits + self.mantissa_bits
        magnitude, negative = code & ((1 << magnitude_bits) - 1), code >> magnitude_bits
        exponent, mantissa = magnitude >> self.mantissa_bits, magnitude & ((1 << self.mantissa_bits) - 1)
        all_ones = magnitude == (1 << magnitude_bits) - 1
        if self.special == "fnu":
            return float("nan") if all_ones else 2.0 ** (exponent - self.bias)
        if self.special == "ieee" and exponent == (1 << self.exponent_bits) - 1:
            return float("nan") if mantissa else (float("-inf") if negative else float("inf"))
        if (self.special == "fn" and all_ones) or (self.special == "fnuz" and negative and magnitude == 0):
            return float("nan")
        significand = mantissa if exponent == 0 else mantissa + (1 << self.mantissa_bits)
        value = significand * 2.0 ** (max(exponent, 1) - self.bias - self.mantissa_bits)
        return -value if negative else value

    @cached_property
    def is_number(self) -> np.ndarray:
        """bool, (2**bits,): False for codes that are NaN, infinity or unassigned."""
        return np.isfinite(self.values)

    @cached_property
    def max(self) -> float:
        """Largest finite value."""
        return float(self.values[self.is_number].max())

    @cached_property
    def min(self) -> float:
        """Most negative finite value (0 or more for unsigned formats)."""
        return float(self.values[self.is_number].min())

    @cached_property
    def smallest(self) -> float:
        """Smallest positive value (subnormals included)."""
        finite = self.values[self.is_number]
        return float(finite[finite > 0].min(initial=np.inf))

    @cached_property
    def unit(self) -> int:
        """Exponent of the common power of two: value = grid * 2**unit for every finite code."""
        if self.kind == "int":
            return 0
        if self.kind == "float":
            return -self.bias if self.special == "fnu" else 1 - self.bias - self.mantissa_bits
        exponents = [_trailing_exponent(v) for v in self.table if v != 0]
        return min(exponents, default=0)

    @cached_property
    def grid(self) -> np.ndarray:
        """(2**bits,): each value divided by 2**unit, exactly; 0 for special codes.

        int64 where that holds every entry, else Python integers (dtype object), as in e7m0 or e8m0fnu.
        """
        scale = Fraction(2) ** self.unit
        exact = [int(Fraction(float(v)) / scale) if np.isfinite(v) else 0 for v in self.values]
        fits = max(map(abs, exact)) < 2**63
        out = np.array(exact, dtype=np.int64 if fits else object)
        out.flags.writeable = False
        return out

    @cached_property
    def grid_max(self) -> int:
        """Largest |grid|, a Python integer."""
        return max(abs(int(g)) for g in self.grid)

    @cached_property
    def scale_max(self) -> float:
        """The magnitude that absmax is mapped to: the largest t with both t and -t in range (one side if unsigned)."""
        sides = [side for side in (self.max, -self.min) if side > 0]
        return min(sides)

    @cached_property
    def nan_code(self) -> int | None:
        """The code that NaN is stored as, None if the format has none."""
        if self.special == "none":
            return None
        if self.special == "fnuz":
            return 1 << (self.bits - 1)
        if self.special == "ieee":  # quiet NaN: top mantissa bit
            return (((1 << self.exponent_bits) - 1) << self.mantissa_bits) | (1 << (self.mantissa_bits - 1))
        return (1 << (self.exponent_bits + self.mantissa_bits)) - 1

    @cached_property
    def negative_zero_code(self) -> int | None:
        """The code of minus zero, None if the format has none."""
        hits = np.flatnonzero((self.values == 0) & np.signbit(self.values))
        return int(hits[0]) if len(hits) else None

    def overflow_code(self, negative: bool) -> int | None:
        """The code that a value beyond the range becomes under overflow="special": infinity, else NaN, else None."""
        if self.special == "none":
            return None
        if negative and not self.signed:
            return self.nan_code
        sign = (1 << (self.bits - 1)) if negative else 0
        if self.special == "ieee":
            return sign | (((1 << self.exponent_bits) - 1) << self.mantissa_bits)
        return self.nan_code if self.special in ("fnuz", "fnu") else sign | self.nan_code

    def encode(self, x, rounding: str = "nearest_even", overflow: str = "saturate", random_bits=None):
        """Round each value of x to this format and return its codes.

        Args:
            x: any shape; numpy array or torch tensor of float64 or narrower.
            rounding: nearest_even (ties to the even code), nearest_away, toward_zero, up, down or stochastic.
            overflow: "saturate" to the largest finite value (infinities too), or "special": the format's infinity or
                NaN (finite values saturate where the rounding points inwards: IEEE 754-2019, section 7.4).
            random_bits: uint32, shape of x; needed by stochastic. x between neighbours lo < hi is rounded up when
                random_bits / 2**32 < (x - lo) / (hi - lo).
        Returns:
            uint8, same shape and kind as x.
        Raises:
            ValueError: x holds NaN and the format has none (the first position is named), or a mode is unknown.
        Source: OCP Microscaling Formats v1.0, section 5.3; IEEE 754-2019, section 4.3.
        """
        if random_bits is not None:
            random_bits = to_numpy(random_bits)
        return like(encoding.encode(self, to_numpy(x), rounding, overflow, random_bits), x)

    def decode(self, codes):
        """The float32 values of codes (uint8, any shape, numpy or torch).

        Raises:
            ValueError: a code is out of range for this format (the first position is named).
        """
        return like(encoding.decode(self, to_numpy(codes)), codes)


def _trailing_exponent(value: float) -> int:
    """The largest e such that value is an integer times 2**e."""
    fraction = Fraction(value)
    numerator = abs(fraction.numerator)
    return (numerator & -numerator).bit_length() - 1 - (fraction.denominator.bit_length() - 1)
