"""What the float tests share: every EeMm described without the library, probes, exact rounding on fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import gfloat
import numpy as np

MODES = {
    "nearest_even": gfloat.RoundMode.TiesToEven,
    "nearest_away": gfloat.RoundMode.TiesToAway,
    "toward_zero": gfloat.RoundMode.TowardZero,
    "up": gfloat.RoundMode.TowardPositive,
    "down": gfloat.RoundMode.TowardNegative,
}


class Case(NamedTuple):
    """A float format, as docs/formats.md defines its name."""

    name: str
    signed: bool
    exponent_bits: int
    mantissa_bits: int
    bias: int
    special: str

    @property
    def bits(self) -> int:
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def gfloat(self) -> gfloat.FormatInfo:
        high_nans = {"none": 0, "ieee": 2**self.mantissa_bits - 1, "fn": 1, "fnuz": 0, "fnu": 1}
        return gfloat.FormatInfo(
            self.name,
            k=self.bits,
            precision=self.mantissa_bits + 1,
            bias=self.bias,
            is_signed=self.signed,
            domain=gfloat.Domain.Extended if self.special == "ieee" else gfloat.Domain.Finite,
            has_nz=self.signed and self.special != "fnuz",
            num_high_nans=high_nans[self.special],
            has_subnormals=self.special != "fnu",
            is_twos_complement=False,
        )

    @property
    def max_magnitude(self) -> int:
        """The code of the largest finite value."""
        last = 2 ** (self.exponent_bits + self.mantissa_bits) - 1
        return last - {"none": 0, "ieee": 2**self.mantissa_bits, "fn": 1, "fnuz": 0, "fnu": 1}[self.special]

    def magnitude(self, n: int) -> Fraction:
        """The value of the n-th magnitude, as if the exponent field had no upper end."""
        exponent, mantissa = divmod(n, 1 << self.mantissa_bits)
        if self.special == "fnu":
            return Fraction(2) ** (n - self.bias)
        significand = mantissa + (1 << self.mantissa_bits if exponent else 0)
        return significand * Fraction(2) ** (max(exponent, 1) - self.bias - self.mantissa_bits)


def case(signed: bool, exponent_bits: int, mantissa_bits: int, suffix: str = "", bias: int | None = None) -> Case:
    special = {"": "none", "finite": "none"}.get(suffix, suffix)
    if (signed, exponent_bits, mantissa_bits, suffix) == (True, 5, 2, ""):
        special = "ieee"
    own = "" if bias is None else f"b{bias}"
    if bias is None:
        bias = 2 ** (exponent_bits - 1) - (0 if special == "fnuz" else 1)
    return Case(
        f"{'' if signed else 'u'}e{exponent_bits}m{mantissa_bits}{own}{suffix}",
        signed,
        exponent_bits,
        mantissa_bits,
        bias,
        special,
    )


def _suffixes(signed: bool, exponent_bits: int, mantissa_bits: int) -> list[str]:
    if signed + exponent_bits + mantissa_bits < 8:
        return [""]
    if (exponent_bits, mantissa_bits) == (8, 0):
        return ["fn"]  # all-finite would reach 2**128: see EXTRA
    if (signed, exponent_bits, mantissa_bits) == (True, 5, 2):
        return ["", "finite", "fn", "fnuz"]
    bare = "finite" if (signed, exponent_bits, mantissa_bits) == (True, 4, 3) else ""
    return [bare, "fn", *(["ieee"] if mantissa_bits else []), *(["fnuz"] if signed else [])]


SPLITS = [
    (signed, exponent_bits, bits - signed - exponent_bits)
    for signed in (True, False)
    for bits in range(2, 9)
    for exponent_bits in range(1, bits - signed + 1)
]
EXTRA = [
    case(True, 4, 3, "fnuz", 11),
    case(False, 8, 0, "finite", 128),
    Case("e8m0fnu", False, 8, 0, 127, "fnu"),
    Case("e8m0b140fnu", False, 8, 0, 140, "fnu"),
]
CASES = [case(*split, suffix) for split in SPLITS for suffix in _suffixes(*split)] + EXTRA
OWN_BIAS = [
    case(*split, suffix, bias)
    for split in SPLITS
    for suffix in _suffixes(*split)[:2]
    for bias in (-2, 2 ** (split[1] - 1) + 5)
    if split[1] < 7
]


def probes(c: Case, random_count: int) -> np.ndarray:
    """float64: every value and midpoint up to beyond overflow, their float32 and float64 neighbours, and random values.

    Signed formats get both signs. Left out is what gfloat does not handle: values below the smallest of e8m0fnu, and
    those below float32's smallest, which it scales down to zero.
    """
    top = c.max_magnitude
    values = np.array([float(c.magnitude(n)) for n in range(top + 3)])
    exact = np.concatenate([values, (values[1:] + values[:-1]) / 2, [1.5 * values[-1], 16 * values[-1]]])
    with np.errstate(over="ignore"):
        single = exact.astype(np.float32)
        near = [np.nextafter(x, x.dtype.type(end)) for x in (exact, single) for end in (-np.inf, np.inf)]
    rng = np.random.default_rng(c.bits * 100 + c.exponent_bits)
    smallest, largest = values[values > 0].min(), values[top]
    wide = np.exp2(rng.uniform(np.log2(smallest) - 3, np.log2(largest) + 1, random_count // 2))
    flat = rng.uniform(0, 1.2 * largest, random_count - random_count // 2).astype(np.float32)
    out = np.concatenate([exact, *near, wide, flat, [1e300, np.inf]])
    out = np.concatenate([[0.0], out[out >= 2.0**-149]])
    out = out[out >= values[0]]
    return np.concatenate([out, -out]) if c.signed else out


def round_exactly(c: Case, x: float, rounding: str, overflow: str, random: int = 0) -> int:
    """The code of a finite x by the written rules, on Fractions. Negative x only for signed formats.

    The magnitude is rounded as if there were no largest one; then what passed it is saturated or made special.
    """
    negative = bool(np.signbit(x))
    size = abs(Fraction(x))
    n = _at_most(c, size)
    away = (size - c.magnitude(n)) / (c.magnitude(n + 1) - c.magnitude(n))  # 0 <= away < 1
    half = Fraction(1, 2)
    grows = {
        "nearest_even": away > half or (away == half and n % 2 == 1),  # of two neighbours, one code is even
        "nearest_away": away >= half,
        "toward_zero": False,
        "up": away > 0 and not negative,
        "down": away > 0 and negative,
        # Upwards when random / 2**32 < (x - low) / (high - low); for negative x, upwards is towards zero.
        "stochastic": away > 0 and (Fraction(random, 2**32) < (1 - away if negative else away)) != negative,
    }
    n += grows[rounding]
    sign = 1 << (c.bits - 1) if negative else 0
    if n > c.max_magnitude:
        inwards = rounding in ("toward_zero", "down" if not negative else "up")
        if overflow == "saturate" or inwards:
            n = c.max_magnitude
        elif c.special == "fnuz":
            return 1 << (c.bits - 1)
        else:  # infinity for ieee, NaN for fn and fnu: the next code
            n = c.max_magnitude + 1
    return n if n == 0 and c.special == "fnuz" else n | sign


def _at_most(c: Case, size: Fraction) -> int:
    """The largest n whose magnitude is at most `size`."""
    low, high = 0, 1
    while c.magnitude(high) <= size:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if c.magnitude(middle) <= size else (low, middle)
    return low
