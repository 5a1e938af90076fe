"""Rounding to a format, for any value table: find the two neighbours, then pick one by the rounding rule.

All comparisons are made in float64 on midpoints that float64 holds exactly (a minifloat's midpoint has
mantissa_bits + 2 significant bits), so float32 and float64 inputs are rounded once. For a codebook the midpoint is the
float64 average.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .arrays import first_index

if TYPE_CHECKING:
    from .format import Format

ROUNDINGS = ("nearest_even", "nearest_away", "toward_zero", "up", "down", "stochastic")
OVERFLOWS = ("saturate", "special")


class Line(NamedTuple):
    """The format's finite values in ascending order, with one more step beyond each end to round overflow against."""

    values: np.ndarray  # float64, (n + 2,)
    codes: np.ndarray  # int64, (n + 2,); the two ends continue the parity of their neighbours
    tie_up: np.ndarray  # bool, (n + 1,): a tie between values[i] and values[i + 1] goes to i + 1 under nearest_even


@cache
def line(f: Format) -> Line:
    codes = np.flatnonzero(f.is_number)
    values, first = np.unique(f.values[codes], return_index=True)  # equal values: the lowest code (+0 before -0)
    codes = codes[first].astype(np.int64)
    below, above = _steps_beyond(f, values)
    values = np.concatenate([[below], values, [above]])
    codes = np.concatenate([[codes[0] + 1], codes, [codes[-1] + 1]])
    low, high = codes[:-1], codes[1:]
    tie_up = (high % 2 < low % 2) | ((high % 2 == low % 2) & (high < low))
    return Line(values, codes, tie_up)


def _steps_beyond(f: Format, values: np.ndarray) -> tuple[float, float]:
    """The values that would come next if the format went on: what decides whether a value overflows."""
    if f.kind == "codebook":
        return values[0], values[-1]
    if f.kind == "int":
        return values[0] - 1, values[-1] + 1
    if f.special == "fnu":
        return 0.0, values[-1] * 2
    _, exponent = np.frexp(f.max)
    ulp = 2.0 ** max(exponent - 1 - f.mantissa_bits, f.unit)
    return (f.min - ulp if f.signed else -f.smallest), f.max + ulp


def encode(f: Format, x: np.ndarray, rounding: str, overflow: str, random_bits: np.ndarray | None) -> np.ndarray:
    if rounding not in ROUNDINGS:
        raise ValueError(f"unknown rounding {rounding!r}: choose one of {', '.join(ROUNDINGS)}")
    if overflow not in OVERFLOWS:
        raise ValueError(f"unknown overflow {overflow!r}: choose one of {', '.join(OVERFLOWS)}")
    if overflow == "special" and f.special == "none":
        raise ValueError(f"overflow='special' needs a format with infinity or NaN, and {f} has none: use 'saturate'")
    if rounding == "stochastic" and (random_bits is None or random_bits.shape != x.shape):
        raise ValueError(f"stochastic rounding of shape {x.shape} needs random_bits (uint32) of the same shape")
    x = x.astype(np.float64)
    nan = np.isnan(x)
    if nan.any() and f.nan_code is None:
        raise ValueError(f"x holds NaN at {first_index(nan)} and {f} has no NaN")
    x = np.where(nan, 0.0, x)

    steps = line(f)
    last = len(steps.values) - 1
    clipped = np.clip(x, steps.values[0], steps.values[-1])
    low = np.clip(np.searchsorted(steps.values, clipped, side="right") - 1, 0, last - 1)
    up = _rounds_up(steps, low, clipped, rounding, random_bits)
    index = low + up

    codes = steps.codes[np.clip(index, 1, last - 1)]
    if f.negative_zero_code is not None:
        zero = steps.values[np.clip(index, 1, last - 1)] == 0
        codes = np.where(zero & np.signbit(x), f.negative_zero_code, codes)
    if overflow == "special":
        # A rounding that points inwards stops at the end of the range: IEEE 754-2019, section 7.4.
        above = (index == last) & (rounding not in ("toward_zero", "down"))
        below = (index == 0) & (rounding not in ("toward_zero", "up") or not f.signed)
        codes = np.where(above | (x == np.inf), f.overflow_code(negative=False), codes)
        codes = np.where(below | (x == -np.inf), f.overflow_code(negative=True), codes)
    if f.nan_code is not None:
        codes = np.where(nan, f.nan_code, codes)
    return codes.astype(np.uint8)


def _rounds_up(steps: Line, low: np.ndarray, x: np.ndarray, rounding: str, random_bits) -> np.ndarray:
    """Whether x, between values[low] and values[low + 1], goes to the upper one."""
    lower, upper = steps.values[low], steps.values[low + 1]
    if rounding == "down":
        return x >= upper
    if rounding == "up":
        return x > lower
    if rounding == "toward_zero":
        return np.where(x < 0, x > lower, x >= upper)
    if rounding == "stochastic":  # from the neighbour nearer zero: only that distance is exact in float64
        up = random_bits.astype(np.float64) * (upper - lower) < (x - lower) * 2.0**32
        not_down = (upper - x) * 2.0**32 < (2.0**32 - random_bits) * (upper - lower)
        return np.where(x < 0, not_down, up)
    middle = lower + (upper - lower) / 2
    # Away from zero; neighbours of equal magnitude (binary) go to the positive one.
    tie_up = steps.tie_up[low] if rounding == "nearest_even" else upper >= -lower
    return (x > middle) | ((x == middle) & tie_up)


def decode(f: Format, codes: np.ndarray) -> np.ndarray:
    check_codes(f, codes)
    return f.values.astype(np.float32)[codes.astype(np.intp)]


def check_codes(f: Format, codes: np.ndarray) -> None:
    """Raise if codes holds anything but the codes of f."""
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be integers (uint8), got {codes.dtype}")
    count = len(f.table) if f.table is not None else 1 << f.bits
    bad = (codes < 0) | (codes >= count)
    if bad.any():
        where = first_index(bad)
        raise ValueError(f"code {int(codes[where])} at {where} is out of range for {f}: codes are 0..{count - 1}")
