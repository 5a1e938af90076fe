"""The reference result of mf.linear: the exact contract bit for bit, the float contract with its error bound."""

from __future__ import annotations

import math

import numpy as np

from ..formats import QuantSpec
from ..formats.arrays import is_torch, to_numpy
from .integers import exact_dot, to_float32
from .quantize import Quantized, quantize


def linear(x, q, bias=None, activation: str | QuantSpec | None = None):
    """x @ w.T + bias with w quantized, and x too if `activation` says how.

    Args:
        x: (..., K), float32 or narrower; numpy or torch.
        q: the weight, (N, K): a QTensor or an emulator.Quantized.
        bias: (N,) or None.
        activation: spec of x, or None for the float contract.
    Returns:
        (..., N), x's dtype and kind. Exact contract: the bits every backend returns. Float contract: the float64
        result, rounded to x's dtype.
    Source: docs/numerics.md.
    """
    weight = _as_quantized(q)
    k = weight.codes.shape[1]
    if x.shape[-1] != k:
        raise ValueError(f"linear: x has K={x.shape[-1]} but the weight has K={k}")
    rows = to_numpy(x).reshape(math.prod(x.shape[:-1]), k)  # not -1: K may be 0
    if rows.dtype == np.float64:
        raise ValueError("linear: x is float64; convert it to float32")
    bias = None if bias is None else to_numpy(bias).astype(np.float32)
    with np.errstate(all="ignore"):
        if activation is None:
            y = rows.astype(np.float64) @ dequantize(weight).T + (0 if bias is None else bias.astype(np.float64))
        else:
            y = _exact(quantize(rows.astype(np.float32), activation), weight, bias)
        y = y.reshape(*x.shape[:-1], weight.codes.shape[0])
        if is_torch(x):
            return x.new_tensor(y, dtype=x.dtype) if activation is None else x.new_tensor(y).to(x.dtype)
        return y.astype(x.dtype)


def dequantize(q) -> np.ndarray:
    """float64 (rows, K): the real value of each element, exact but for the product with a second-level scale."""
    q = _as_quantized(q)
    values = q.spec.format.values[q.codes]
    if q.zero_points is not None:
        values = values - _per_element(q.zero_points, q.codes.shape)
    values = values * _per_element(q.scales, q.codes.shape).astype(np.float64)
    return values if q.tensor_scale is None else values * np.float64(q.tensor_scale)


def float_bound(x, q, bias=None) -> np.ndarray:
    """float64 (..., N): how far a float-contract result may lie from the real one, before the cast to x's dtype.

    gamma(K + groups + 4) * (sum of |x * w| + |bias|), gamma(n) = n u / (1 - n u), u = 2**-24, plus one smallest float32
    per operation for underflow: every order of summation meets it. Source: docs/numerics.md; Higham, section 3.1.
    """
    weight = _as_quantized(q)
    k = weight.codes.shape[1]
    terms = k + weight.scales.shape[1] + 4
    gamma = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    total = np.abs(to_numpy(x).astype(np.float64)) @ np.abs(dequantize(weight)).T
    if bias is not None:
        total = total + np.abs(to_numpy(bias).astype(np.float64))
    return gamma * total + terms * 2.0**-149


def _exact(a: Quantized, w: Quantized, bias: np.ndarray | None) -> np.ndarray:
    """float32 (M, N), each float step one rounded float32 operation in the order of docs/numerics.md."""
    m, k = a.codes.shape
    n = w.codes.shape[0]
    a_grid, w_grid = _integers(a), _integers(w)
    unit = a.spec.format.unit + w.spec.format.unit
    a_length, w_length = (q.spec.group_size or k for q in (a, w))
    length = math.gcd(a_length, w_length)
    acc = np.zeros((m, n), dtype=np.float32)
    for start in range(0, k, length) if k else []:
        part = slice(start, start + length)
        value = to_float32(exact_dot(a_grid[:, part], w_grid[:, part]), unit)
        scale = w.scales[:, start // w_length if w.spec.group_size else 0]
        if a.spec.group_size:
            scale = scale * a.scales[:, start // a_length, None]
        acc = acc + value * scale
    if not a.spec.group_size:
        acc = acc * a.scales
    for q in (w, a):
        if q.tensor_scale is not None:
            acc = acc * q.tensor_scale
    return acc if bias is None else acc + bias


def _integers(q: Quantized) -> np.ndarray:
    """The grid value of each element, zero point subtracted."""
    grid = q.spec.format.grid[q.codes]
    return grid if q.zero_points is None else grid - _per_element(q.zero_points, q.codes.shape)


def _per_element(per_group: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(rows, groups) or (1, 1) spread to (rows, K)."""
    repeats = max(shape[1] // max(per_group.shape[1], 1), 1)
    return np.broadcast_to(np.repeat(per_group, repeats, axis=1)[:, : shape[1]], shape)


def _as_quantized(q) -> Quantized:
    return q if isinstance(q, Quantized) else q.as_quantized()
