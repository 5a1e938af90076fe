"""The two representable values on either side of each weight, and a weight put together from chosen codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..formats import Format
from ..formats.encoding import line
from ..qtensor import QTensor


class Neighbours(NamedTuple):
    """What each weight may be rounded to with the scales of one QTensor.

    low, high: float32 (N, K), low <= w <= high; both are the end of the range where w lies beyond it.
    low_codes, high_codes: uint8 (N, K).
    """

    low: torch.Tensor
    high: torch.Tensor
    low_codes: torch.Tensor
    high_codes: torch.Tensor


def neighbours(w: torch.Tensor, q: QTensor) -> Neighbours:
    """The neighbours of w (N, K) on the grid that q's format, scales and zero points span."""
    values, codes = grid_of(q.spec.format)
    step, zero = steps_and_zeros(q)
    below = torch.bucketize(w.double() / step + zero, values, right=True) - 1
    last = len(values) - 1
    low_codes, high_codes = codes[below.clamp(0, last)], codes[(below + 1).clamp(0, last)]
    # Dequantized as the kernels do it, so that low and high are what the model will multiply with.
    low, high = (with_codes(q, c).dequantize() for c in (low_codes, high_codes))
    return Neighbours(low, high, low_codes, high_codes)


def grid_of(f: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of a format in ascending order, float64, and their codes, uint8: one of each value."""
    steps = line(f)  # has one more entry beyond each end
    return torch.from_numpy(steps.values[1:-1].copy()), torch.from_numpy(steps.codes[1:-1].astype(np.uint8))


def steps_and_zeros(q: QTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 (N, K) each: a weight is step * (value of its code - zero)."""
    step = q.scales.double() * (1.0 if q.tensor_scale is None else q.tensor_scale.double())
    zero = torch.zeros_like(step)
    if q.zero_points is not None:
        zero = torch.from_numpy(q.spec.format.values.copy())[q.zero_points.long()]
    return per_element(step, q.shape), per_element(zero, q.shape)


def per_element(per_group: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(N, groups) or (1, 1) spread to (N, K)."""
    repeats = shape[1] // max(per_group.shape[1], 1)
    return per_group.repeat_interleave(repeats, dim=1).expand(shape)


def with_codes(q: QTensor, codes: torch.Tensor) -> QTensor:
    """q with other codes (uint8, (N, K)) and the same scales."""
    packed = torch.ops.minifloat.pack(codes, q.spec.format.bits)
    return QTensor(q.spec, q.shape, packed, q.scale_data, q.zero_points, q.tensor_scale)
