"""Rounding to a format in torch, value to value: where codes are not needed and tensors are large."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from ..formats import Format, QuantSpec
from ..formats.encoding import line
from ..ops.records import operand_record, rank_thresholds

SMALLEST_SCALE, LARGEST = 2.0**-126, torch.finfo(torch.float32).max
EXPONENT_BITS = 0x7F800000


def nearest_values(t: torch.Tensor, f: Format) -> torch.Tensor:
    """float32: each t, float32, rounded to the nearest value of f, ties to the even code, saturating.

    The bits of f.decode(f.encode(t)), except that NaN stays NaN and zeros are of either sign.
    """
    if f.kind == "int":
        return t.round().clamp_(f.min, f.max)
    if (
        f.kind == "float"
        and f.special != "fnu"
        and f.mantissa_bits
        and f.signed
        and 1 - f.bias - f.mantissa_bits > -126
    ):
        t = t.clamp(f.min, f.max)
        lowest = (1 - f.bias + 127) << 23  # the exponent of subnormals, as float32 stores it
        exponent = (t.view(torch.int32) & EXPONENT_BITS).clamp_(min=lowest)
        ulp = (exponent - (f.mantissa_bits << 23)).view(torch.float32)
        return t.div_(ulp).round_().mul_(ulp)  # by powers of two: only round_ rounds
    thresholds, values = _table(f)
    found = values[torch.bucketize(t, thresholds, right=True)]
    return torch.where(t.isnan(), t, found)


@cache
def _table(f: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascending: the smallest t that rounds to each value but the first, and the values."""
    ranks = line(f)
    values = ranks.values[1:-1]
    thresholds = rank_thresholds(values, ranks.tie_up[1:-1])[: len(values) - 1]
    return torch.from_numpy(thresholds.copy()), torch.from_numpy(values.astype(np.float32))


def find_scales(rows: torch.Tensor, spec: QuantSpec) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scales of rows (M, K) by absmax, and zero points (None without): (M, 1) for "row", (1, 1) for "tensor".

    spec: without groups or second-level scales.
    """
    if spec.granularity == "tensor":
        rows = rows.reshape(1, -1)
    return scales_of(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), spec)


def scales_of(low: torch.Tensor, high: torch.Tensor, spec: QuantSpec) -> tuple[torch.Tensor, torch.Tensor | None]:
    """find_scales for what lies between low and high, of any shape: NaN where either is not finite."""
    finite = (high < torch.inf) & (low > -torch.inf)
    if spec.scale_format == "float32" and not spec.zero_point:
        top = torch.maximum(high, -low) if spec.format.signed else high.clamp(min=0)
        return torch.where(finite, top, torch.nan).div_(spec.format.scale_max).clamp_(SMALLEST_SCALE, LARGEST), None
    ends = torch.stack([low.flatten(), high.flatten()], 1)
    spec = replace(spec, granularity="row")
    _, scales, points, _ = torch.ops.minifloat.quantize(ends, operand_record(spec))
    scales = torch.where(finite, scales.reshape(low.shape), torch.nan)
    return scales, points.reshape(low.shape) if spec.zero_point else None


def scaled_values(
    rows: torch.Tensor, spec: QuantSpec, scales: torch.Tensor, points: torch.Tensor | None
) -> torch.Tensor:
    """float32 (M, K): what rows are rounded to, in units of their scales, zero points subtracted."""
    t = rows / scales
    if points is None:
        return nearest_values(t, spec.format)
    return t.round_().add_(points).clamp_(spec.format.min, spec.format.max).sub_(points)
