"""Several quantized matrix products of the same shape at once, as in grouped and depthwise convolutions.

The exact contract's sums are sums of whole numbers times one power of two, so any arithmetic that holds them is exact:
here torch's batched products and convolutions, in float32 where the sums stay within 24 bits, else in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from .. import ops
from ..formats import QuantSpec
from ..ops.records import operand_record
from ..plan import Plan
from ..qtensor import QTensor
from .prepared import PreparedWeight
from .rounding import find_scales, scaled_values, scales_of


def carrier_of(prepared: PreparedWeight, fold: int) -> torch.dtype | None:
    """The float that holds every sum of `fold` products exactly, None if neither float32 nor float64 does."""
    plan = Plan(prepared.spec, prepared.activation)
    bits = plan.accumulator_bits(fold)  # with the sign
    if bits <= 25 and plan.unit >= -126 and plan.unit + bits <= 127:
        return torch.float32
    return torch.float64 if bits <= 54 else None


def grouped_linear(x: torch.Tensor, prepared: PreparedWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """y[:, n] = x[g] @ w[n] + bias[n] for each row n of w, with g = n // (N / groups).

    Args:
        x: (groups, M, K). With one scale per tensor, or a second-level one, all of it shares that scale.
        prepared: the weight (N, K) and the activation spec.
    Returns:
        (M, N), x's dtype: the bits of the exact contract.
    """
    groups, m, k = x.shape
    weight, activation = prepared.spec, prepared.activation
    fold = math.gcd(weight.group_size or k, activation.group_size or k)  # products that share their scales
    carrier = carrier_of(prepared, fold)
    if carrier is None:
        return _one_by_one(x, prepared, bias)
    q = prepared.qtensor
    a, a_scales, a_second = _quantize(x.float().reshape(groups * m, k), activation)
    a, a_scales = a.to(carrier).reshape(groups, m, k), a_scales.reshape(groups, m, -1)
    w = _weight_values(q).to(carrier).reshape(groups, -1, k)
    w_scales = q.scales.expand(q.shape[0], -1).reshape(groups, 1, w.shape[1], -1)
    acc = 0.0
    for start in range(0, k, fold):
        part = slice(start, start + fold)
        scale = w_scales[..., start // (weight.group_size or k)]
        if activation.group_size:
            scale = scale * a_scales[..., start // activation.group_size, None]
        acc = acc + _products(a[..., part], w[..., part]).float() * scale
    if not activation.group_size:
        acc = acc * a_scales
    return _finished(acc.permute(1, 0, 2).reshape(m, -1), q, a_second, bias, -1).to(x.dtype)


def grouped_conv(
    x: torch.Tensor,
    prepared: PreparedWeight,
    bias: torch.Tensor | None,
    ends: torch.Tensor | None,
    shape: torch.Size,
    **geometry,
) -> torch.Tensor:
    """A grouped convolution of x (B, C, H, W), padded, whose pixels all share one scale: without its patches.

    Args:
        prepared: a weight with one scale per row or tensor, and an activation spec with one per tensor, for which
            carrier_of is not None.
        ends: float32 (2,), the range that x is clipped to and scaled for; None: that of x.
        shape: of the weight as the convolution's. geometry: stride, dilation and groups.
    Returns:
        float32 (B, N, H', W'): the bits of grouped_linear of the patches.
    """
    spec, q, carrier = prepared.activation, prepared.qtensor, carrier_of(prepared, prepared.shape[1])
    rows = x.float().reshape(-1, x.shape[-1])
    if ends is not None:
        rows = rows.clamp(ends[0], ends[1])
    scale, points = find_scales(rows if ends is None else ends[None], spec)
    _check_finite(scale, spec)
    a = scaled_values(rows, spec, scale, points)
    w = _weight_values(q).reshape(shape)
    y = F.conv2d(a.reshape(x.shape).to(carrier), w.to(carrier), None, padding=0, **geometry).float()
    y = y.mul_(q.scales.expand(q.shape[0], -1)[:, :, None]).add_(0.0).mul_(scale[0])  # 0 + turns -0 into +0
    return _finished(y, q, None, bias, -3)


def depthwise_conv(
    x: torch.Tensor, prepared: PreparedWeight, bias: torch.Tensor | None, kernel: tuple, stride: tuple, dilation: tuple
) -> torch.Tensor:
    """A convolution of x (B, C, H, W), padded, in which each channel is a group, and each patch has a scale.

    It goes through the kernel's positions, so that the patches, which overlap, are never laid out.

    Args:
        prepared: as for grouped_conv, but the activation spec has one scale per row.
    Returns:
        float32 (B, N, H', W'): the bits of grouped_linear of the patches.
    """
    spec, q, carrier = prepared.activation, prepared.qtensor, carrier_of(prepared, prepared.shape[1])
    parts = list(_positions(x.float(), kernel, stride, dilation))
    low, high = parts[0], parts[0]
    for part in parts[1:]:
        low, high = torch.minimum(low, part), torch.maximum(high, part)
    scales, points = scales_of(low, high, spec)
    _check_finite(scales, spec)
    b, channels, height, width = scales.shape
    w = _weight_values(q).to(carrier).reshape(1, channels, -1, len(parts), 1, 1)
    y = torch.zeros(b, channels, w.shape[2], height, width, dtype=carrier)
    for i, part in enumerate(parts):
        values = scaled_values(part, spec, scales, points).to(carrier)
        y.addcmul_(values[:, :, None], w[:, :, :, i])
    w_scales = q.scales.expand(q.shape[0], -1).reshape(channels, -1, 1, 1)
    y = y.float().mul_(w_scales).add_(0.0).mul_(scales[:, :, None])  # 0 + turns -0 into +0
    return _finished(y.reshape(b, -1, height, width), q, None, bias, -3)


def _positions(x: torch.Tensor, kernel: tuple, stride: tuple, dilation: tuple) -> Iterator[torch.Tensor]:
    """For each position in the kernel, what of x (B, C, H, W) lies there: views (B, C, H', W')."""
    out = [(x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] for i in range(2)]
    for i, j in itertools.product(*map(range, kernel)):
        top, left = i * dilation[0], j * dilation[1]
        rows = slice(top, top + out[0] * stride[0] + 1, stride[0])
        yield x[:, :, rows, left : left + out[1] * stride[1] + 1 : stride[1]]


def _quantize(x: torch.Tensor, spec: QuantSpec):
    """x (rows, K) rounded, in units of its scales; the scales (rows, per row); the second-level one."""
    if spec.group_size is None and spec.scale_format != "e4m3fn":
        scales, points = find_scales(x, spec)
        _check_finite(scales, spec)
        return scaled_values(x, spec, scales, points), scales.expand(x.shape[0], 1), None
    record = operand_record(spec)
    codes, scales, points, second = torch.ops.minifloat.quantize(x, record)
    points = points if spec.zero_point else None
    values = torch.ops.minifloat.dequantize(codes, torch.ones_like(scales), points, 1.0, record)
    _check_finite(scales, spec)
    return values, scales, second if spec.scale_format == "e4m3fn" else None


def _check_finite(scales: torch.Tensor, spec: QuantSpec) -> None:
    """Raise where a scale says that x is not finite, if the format has no NaN."""
    if spec.format.nan_code is None and not scales.isfinite().all():
        raise ValueError(f"linear: x holds NaN or infinity, and the activation format {spec.format} has no NaN")


def _weight_values(q: QTensor) -> torch.Tensor:
    """float32 (N, K): the values of a quantized matrix without their scales, zero points subtracted."""
    ones = torch.ones_like(q.scales)
    return torch.ops.minifloat.dequantize(q.codes, ones, q._zero_point_values(), 1.0, operand_record(q.spec))


def _products(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """(groups, M, N / groups) of a (groups, M, fold) and w (groups, N / groups, fold)."""
    if w.shape[1] > 1:
        return a @ w.mT
    return torch.einsum("gmk,gk->gm", a, w[:, 0])[..., None]  # depthwise


def _finished(y: torch.Tensor, q: QTensor, a_second, bias: torch.Tensor | None, channels: int) -> torch.Tensor:
    """y times the second-level scales, plus the bias; dimension `channels` of y is N."""
    for second in (q.tensor_scale, a_second):  # in this order
        y = y if second is None else y * second
    return y if bias is None else y + bias.float().reshape(-1, *[1] * (-1 - channels))


def _one_by_one(x: torch.Tensor, prepared: PreparedWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """Each group by torch.ops.minifloat.linear: for sums that no float holds."""
    spec, q = prepared.activation, prepared.qtensor
    groups, n = x.shape[0], q.shape[0] // x.shape[0]
    ends = None
    if spec.granularity == "tensor" or spec.scale_format == "e4m3fn":
        # Two more rows give every group the extremes, and so the scale, of all of them.
        ends = torch.stack([x.amin(), x.amax()])[:, None].expand(2, x.shape[2])
    out = []
    for g in range(groups):
        rows = slice(g * n, (g + 1) * n)
        weight, plan = ops.prepare(_rows(q, rows), spec)
        given = x[g] if ends is None else torch.cat([x[g], ends])
        part = None if bias is None else bias[rows]
        out.append(torch.ops.minifloat.linear.default(given, weight, plan, part, n)[: x.shape[1]])
    return torch.cat(out, 1)


def _rows(q: QTensor, rows: slice) -> QTensor:
    """Some rows of a quantized matrix."""
    every = q.spec.granularity == "tensor"
    points = q.zero_points if every or q.zero_points is None else q.zero_points[rows]
    scales = q.scale_data if every else q.scale_data[rows]
    n = q.packed[rows].shape[0]
    return QTensor(q.spec, (n, q.shape[1]), q.packed[rows], scales, points, q.tensor_scale)
