"""Exact integer dot products of any width, and their one rounding to float32."""

from __future__ import annotations

import numpy as np

DIGIT_BITS = 20  # digits below 2**20 in magnitude: a float64 sum of 2**12 of their products stays below 2**53
CHUNK = 1 << 12


def exact_dot(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """a @ w.T over the integers: a (M, K), w (N, K), int64 or Python integers.

    Returns:
        (M, N), float64 if every entry is proven below 2**53 (then it is exact), else Python integers (dtype object).
    """
    k = a.shape[1]
    bound = k * _largest(a) * _largest(w)
    if bound < 2**53:  # every partial sum is an integer below 2**53, so any order of additions is exact
        return a.astype(np.float64) @ w.astype(np.float64).T
    total = np.zeros((a.shape[0], w.shape[0]), dtype=object)
    for start in range(0, k, CHUNK):
        a_digits, w_digits = _digits(a[:, start : start + CHUNK]), _digits(w[:, start : start + CHUNK])
        for i, a_digit in enumerate(a_digits):
            for j, w_digit in enumerate(w_digits):
                total += (a_digit @ w_digit.T).astype(np.int64).astype(object) << (DIGIT_BITS * (i + j))
    return total


def to_float32(sums: np.ndarray, unit: int) -> np.ndarray:
    """float32(sums * 2**unit), rounded once to nearest even."""
    if sums.dtype != object:
        return np.ldexp(sums, unit).astype(np.float32)  # exact in float64, then one rounding
    flat = [_to_odd(int(s), unit) for s in sums.ravel()]
    with np.errstate(over="ignore"):
        return np.array(flat, dtype=np.float64).reshape(sums.shape).astype(np.float32)


def _to_odd(value: int, unit: int) -> float:
    """value * 2**unit cut to 53 bits, the last one set if anything was cut: a later rounding to 24 bits is exact."""
    magnitude = abs(value)
    cut = max(magnitude.bit_length() - 53, 0)
    kept = magnitude >> cut
    if kept << cut != magnitude:
        kept |= 1
    result = float(np.ldexp(float(kept), cut + unit))
    return -result if value < 0 else result


def _largest(x: np.ndarray) -> int:
    return max((abs(int(v)) for v in (x.min(initial=0), x.max(initial=0))), default=0)


def _digits(x: np.ndarray) -> list[np.ndarray]:
    """x as signed digits in base 2**DIGIT_BITS, lowest first, each a float64 array."""
    sign = np.where(x < 0, -1, 1).astype(np.float64)
    rest = abs(x.astype(object))
    out = []
    while not out or rest.any():
        out.append((rest & ((1 << DIGIT_BITS) - 1)).astype(np.float64) * sign)
        rest = rest >> DIGIT_BITS
    return out
