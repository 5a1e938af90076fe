"""The reference for binary-coded weights: planes of -1 and +1 side by side, x repeated for each."""

from __future__ import annotations

import numpy as np

from ..formats import QuantSpec
from ..formats.arrays import is_torch
from .linear import dequantize, linear


def binary_coded(x, q, planes: int, bias=None, activation: str | QuantSpec | None = None):
    """x @ w.T + bias, w the sum of the planes of q: the result of nn.BinaryCodedLinear, bit for bit when exact.

    Args:
        x: (..., K), float32 or narrower; numpy or torch.
        q: (N, planes * K), 1-bit codes, plane i in columns i * K to (i + 1) * K - 1: a QTensor or Quantized.
        bias, activation: as in emulator.linear.
    Returns:
        (..., N), x's dtype and kind.
    Source: docs/numerics.md.
    """
    return linear(repeated(x, planes), q, bias, activation)


def repeated(x, planes: int):
    """(..., planes * K): x beside itself."""
    times = (1,) * (x.ndim - 1) + (planes,)
    return x.repeat(times) if is_torch(x) else np.tile(x, times)


def binary_coded_weight(q, planes: int) -> np.ndarray:
    """float64 (N, K): what the planes of q sum up to."""
    parts = dequantize(q)
    return parts.reshape(len(parts), planes, parts.shape[1] // planes).sum(axis=1)
