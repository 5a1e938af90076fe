"""The exact contract of docs/numerics.md for one output at a time, on Python integers and fractions.

Shares nothing with the emulator but the stored result of quantization: codes, scales and what each code means.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

STEP = 300  # every value of every format is an integer times 2**-STEP
LARGEST = Fraction(float(np.finfo(np.float32).max))


def float32_of(x: Fraction) -> np.float32:
    """x rounded once to float32: nearest, ties to even, subnormals, overflow to infinity."""
    if x == 0:
        return np.float32(0)
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    exponent -= abs(x) < Fraction(2) ** exponent  # floor(log2(|x|))
    ulp = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(x / ulp) * ulp  # Python rounds fractions half to even
    if abs(rounded) > LARGEST:
        return np.float32(math.copysign(math.inf, rounded))
    return np.float32(float(rounded))  # exact: 24 bits


def integers(q) -> list[list[int]]:
    """Elements over 2**-STEP with the zero point subtracted; 0 for NaN, whose scale is NaN."""
    table = [int(Fraction(v) * 2**STEP) if np.isfinite(v) else 0 for v in q.spec.format.values.tolist()]
    rows = [[table[c] for c in row] for row in q.codes.tolist()]
    if q.zero_points is None:
        return rows
    k = q.codes.shape[1]
    return [
        [v - (int(per_group(q, q.zero_points, m, i)) << STEP) for i, v in zip(range(k), row, strict=True)]
        for m, row in enumerate(rows)
    ]


def per_group(q, table: np.ndarray, row: int, k: int):
    """The entry of a (rows, groups) or (1, 1) table that belongs to element k of a row."""
    column = k // q.spec.group_size if q.spec.granularity == "group" else 0
    return table[0 if q.spec.granularity == "tensor" else row, column]


def linear(a, w, bias=None) -> np.ndarray:
    """float32 (M, N) for quantized activations a (M, K) and weights w (N, K)."""
    m_count, k = a.codes.shape
    n_count = w.codes.shape[0]
    a_integers, w_integers = integers(a), integers(w)
    grouped = a.spec.granularity == "group"
    length = math.gcd(*(q.spec.group_size if q.spec.granularity == "group" else k for q in (a, w)))
    out = np.zeros((m_count, n_count), np.float32)
    with np.errstate(all="ignore"):
        for m in range(m_count):
            for n in range(n_count):
                acc = np.float32(0)
                for start in range(0, k, length or 1):
                    part = slice(start, start + length)
                    dot = sum(x * y for x, y in zip(a_integers[m][part], w_integers[n][part], strict=True))
                    scale = per_group(w, w.scales, n, start)
                    if grouped:
                        scale = np.float32(scale * per_group(a, a.scales, m, start))
                    acc = np.float32(acc + np.float32(float32_of(Fraction(dot, 4**STEP)) * scale))
                if not grouped:
                    acc = np.float32(acc * per_group(a, a.scales, m, 0))
                for q in (w, a):
                    if q.tensor_scale is not None:
                        acc = np.float32(acc * q.tensor_scale)
                out[m, n] = acc if bias is None else np.float32(acc + np.float32(bias[n]))
    return out


def assert_same_bits(actual: np.ndarray, expected: np.ndarray):
    """Equal values, equal signs of zero; any NaN equals any other."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[number]), np.signbit(expected[number]))
