"""Quantizing a matrix, step by step in float32 as docs/numerics.md states it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..formats import Format, QuantSpec
from ..formats.arrays import first_index, to_numpy

SMALLEST_SCALE = np.float32(2.0**-126)  # a scale is never zero or subnormal
E4M3FN = Format.parse("e4m3fn")
SHRINK = np.arange(64, 31, -1, dtype=np.float32) / np.float32(64)  # candidates of the mse rule for real-valued scales


@dataclass(frozen=True)
class Quantized:
    """A quantized matrix (rows, K) with `groups` scales per row.

    codes: uint8, (rows, K). scales: float32, (rows, groups), or (1, 1) for one per tensor; without the tensor scale.
    zero_points: int64, shape of scales, in the units of code values; None if the spec has none.
    tensor_scale: float32, the second level of e4m3fn scales; None otherwise.
    """

    spec: QuantSpec
    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    tensor_scale: np.float32 | None


def quantize(x, spec: str | QuantSpec) -> Quantized:
    """Quantize x (rows, K), float32 or narrower.

    Raises:
        ValueError: K does not fit the groups, or x holds NaN or infinity and the format has no NaN. With a NaN, the
            scale of a group that holds NaN or infinity is NaN.
    """
    spec = QuantSpec.parse(spec)
    x = to_numpy(x)
    if x.dtype == np.float64:
        raise ValueError("quantize: x is float64; convert it to float32, so that it is rounded once where you see it")
    x = x.astype(np.float32)
    bad = ~np.isfinite(x)
    if bad.any() and spec.format.nan_code is None:
        raise ValueError(f"quantize: x holds {x[first_index(bad)]} at {first_index(bad)} and {spec.format} has no NaN")
    rows, k = x.shape
    groups = spec.groups(k)
    blocks = x.reshape(1, 1, -1) if spec.granularity == "tensor" else x.reshape(rows, groups, k // max(groups, 1))
    with np.errstate(all="ignore"):
        if spec.zero_point:
            scales, zero_points, codes = _with_zero_point(blocks, spec)
            return Quantized(spec, codes.reshape(rows, k), scales, zero_points, None)
        scales, tensor_scale, codes = _symmetric(blocks, spec)
    return Quantized(spec, codes.reshape(rows, k), scales, None, tensor_scale)


def _magnitude(blocks: np.ndarray, f: Format) -> np.ndarray:
    """absmax of each block (maximum for unsigned formats); NaN where the block holds NaN or infinity."""
    if blocks.shape[-1] == 0:
        return np.zeros(blocks.shape[:-1], np.float32)
    top = np.max(np.abs(blocks) if f.signed else np.maximum(blocks, 0), axis=-1)
    return np.where(np.isfinite(blocks).all(axis=-1), top, np.float32(np.nan)).astype(np.float32)


def _symmetric(blocks: np.ndarray, spec: QuantSpec):
    f = spec.format
    top, scale_max = _magnitude(blocks, f), np.float32(f.scale_max)
    tensor_scale = None
    if spec.scale_format == "e8m0fnu":
        raw = _power_of_two(top, f)
        factors = [np.float32(1)] if spec.scale_rule == "absmax" else [np.float32(c) for c in (1, 2, 0.5)]
    else:
        raw = top / scale_max
        factors = [np.float32(1)] if spec.scale_rule == "absmax" else SHRINK
        if spec.scale_format == "e4m3fn":
            largest = np.max(top, initial=np.float32(0))
            tensor_scale = _clamp(largest / (np.float32(E4M3FN.max) * scale_max))
            raw = raw / tensor_scale
    best = None
    for factor in factors:
        scales = store_scale(raw * factor, spec.scale_format)
        step = scales if tensor_scale is None else scales * tensor_scale
        codes = f.encode(blocks / step[..., None])
        error = (f.values[codes] * step[..., None].astype(np.float64) - blocks) ** 2
        error = error.sum(axis=-1)
        if best is None:
            best = [scales, codes, error]
        better = error < best[2]
        best = [
            np.where(better, scales, best[0]),
            np.where(better[..., None], codes, best[1]),
            np.minimum(error, best[2]),
        ]
    return best[0], tensor_scale, best[1].astype(np.uint8)


def _power_of_two(top: np.ndarray, f: Format) -> np.ndarray:
    """OCP MX: 2 ** (floor(log2(absmax)) - floor(log2(largest element))).

    Source: OCP Microscaling Formats v1.0, section 6.3. The lower clamp is 2**-126 instead of 2**-127.
    """
    exponent = np.frexp(top)[1] - np.frexp(np.float32(f.scale_max))[1]
    exponent = np.where(top == 0, -126, np.clip(exponent, -126, 127))
    return np.where(np.isnan(top), np.float32(np.nan), np.ldexp(np.float32(1), exponent)).astype(np.float32)


def _clamp(scale: np.ndarray) -> np.ndarray:
    largest = np.float32(np.finfo(np.float32).max)
    return np.clip(scale, SMALLEST_SCALE, largest).astype(np.float32)


def store_scale(scale: np.ndarray, scale_format: str) -> np.ndarray:
    """The float32 value of `scale` once stored; never zero, subnormal or infinite."""
    if scale_format == "bfloat16":
        return to_bfloat16(np.minimum(_clamp(scale), np.float32(3.3895314e38)))
    if scale_format == "e4m3fn":
        return E4M3FN.decode(E4M3FN.encode(np.maximum(scale, np.float32(E4M3FN.smallest))))
    if scale_format == "e8m0fnu":
        return np.clip(scale, SMALLEST_SCALE, np.float32(2.0**127)).astype(np.float32)
    return _clamp(scale)


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16, nearest even; NaN stays NaN."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), np.float32(np.nan), rounded.view(np.float32)).astype(np.float32)


def _with_zero_point(blocks: np.ndarray, spec: QuantSpec):
    """value = scale * (code value - zero point), chosen so that [min(x, 0), max(x, 0)] fits."""
    f = spec.format
    low, high = np.float32(f.min), np.float32(f.max)
    bottom = np.minimum(blocks.min(axis=-1, initial=0), np.float32(0))
    span = np.maximum(blocks.max(axis=-1, initial=0), np.float32(0)) - bottom
    best = None
    for factor in SHRINK if spec.scale_rule == "mse" else [np.float32(1)]:
        scales = store_scale(span / (high - low) * factor, spec.scale_format)
        zero_points = np.clip(np.rint(low - bottom / scales), low, high)
        grid = np.clip(np.rint(blocks / scales[..., None]) + zero_points[..., None], low, high)
        error = ((grid - zero_points[..., None]).astype(np.float64) * scales[..., None] - blocks) ** 2
        error = error.sum(axis=-1)
        if best is None:
            best = [scales, zero_points, grid, error]
        better = error < best[3]
        best = [
            np.where(better, scales, best[0]),
            np.where(better, zero_points, best[1]),
            np.where(better[..., None], grid, best[2]),
            np.minimum(error, best[3]),
        ]
    codes = best[2].astype(np.int64) & ((1 << f.bits) - 1)
    return best[0], best[1].astype(np.int64), codes.astype(np.uint8)
