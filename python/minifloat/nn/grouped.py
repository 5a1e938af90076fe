"""Several quantized matrix products of the same shape at once, as in grouped and depthwise convolutions.

The exact contract's sums are sums of whole numbers, so any arithmetic that holds them is exact: here torch's batched
products in float32 where the sums stay below 2**24, else in float64.
"""

from __future__ import annotations

import math

import torch

from .. import ops
from ..formats import QuantSpec
from ..ops.records import operand_record
from ..plan import Plan
from ..qtensor import QTensor
from .prepared import PreparedWeight


def grouped_linear(x: torch.Tensor, prepared: PreparedWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """y[:, n] = x[g] @ w[n] + bias[n] for each row n of w, with g = n // (N / groups).

    Args:
        x: (groups, M, K). With one scale per tensor, or a second-level one, all of it shares that scale.
        prepared: the weight (N, K) and the activation spec.
    Returns:
        (M, N), x's dtype: the bits of the exact contract.
    """
    k, plan = x.shape[2], Plan(prepared.spec, prepared.activation)
    fold = _fold(prepared, k)
    bits = plan.accumulator_bits(fold)
    if bits > 54:  # a sign and 53 bits
        return _one_by_one(x, prepared, bias)
    carrier = torch.float32 if bits <= 25 else torch.float64
    q = prepared.qtensor
    a, a_scales, a_second = _quantize(x.float(), prepared.activation, carrier)
    w = _integers(q.codes, q._zero_point_values(), q.spec, carrier)
    y = _scaled(a, a_scales, w, q, plan, fold)
    for second in (q.tensor_scale, a_second):  # in this order
        y = y if second is None else y * second
    return (y if bias is None else y + bias.float()).to(x.dtype)


def _scaled(a, a_scales, w, q: QTensor, plan: Plan, fold: int) -> torch.Tensor:
    """float32 (M, N): sums times scales, in the contract's order. a: integers (groups, M, K), w: integers (N, K)."""
    groups, m, k = a.shape
    w = w.reshape(groups, -1, k)
    w_scales = q.scales.expand(q.shape[0], -1).reshape(groups, 1, w.shape[1], -1)  # (groups, 1, N / groups, per row)
    acc = None
    for start in range(0, k, fold):
        part = slice(start, start + fold)
        value = torch.ldexp((a[..., part] @ w[..., part].mT).double(), torch.tensor(plan.unit)).float()
        scale = w_scales[..., start // (q.spec.group_size or k)]
        if plan.activation.group_size:
            scale = scale * a_scales[..., start // plan.activation.group_size, None]
        acc = value * scale if acc is None else acc + value * scale
    if not plan.activation.group_size:
        acc = acc * a_scales
    return acc.permute(1, 0, 2).reshape(m, -1)


def _quantize(x: torch.Tensor, spec: QuantSpec, carrier: torch.dtype):
    """Integers (groups, M, K), scales (groups, M, per row), second-level scale or None."""
    groups, m, k = x.shape
    codes, scales, points, second = torch.ops.minifloat.quantize(x.reshape(groups * m, k), operand_record(spec))
    if spec.format.nan_code is None and not scales.isfinite().all():
        raise ValueError(f"linear: x holds NaN or infinity, and the activation format {spec.format} has no NaN")
    integers = _integers(codes, points if spec.zero_point else None, spec, carrier)
    return (
        integers.reshape(groups, m, k),
        scales.reshape(groups, m, -1),
        second if spec.scale_format == "e4m3fn" else None,
    )


def _integers(codes: torch.Tensor, points: torch.Tensor | None, spec: QuantSpec, carrier: torch.dtype) -> torch.Tensor:
    """Grid values, zero points subtracted. codes: (rows, K), points: (rows, per row)."""
    grid = torch.tensor([float(g) for g in spec.format.grid], dtype=carrier)[codes.int()]
    if points is None:
        return grid
    points = points.to(carrier).expand(codes.shape[0], -1)
    return grid - points.repeat_interleave(codes.shape[1] // points.shape[1], dim=1)


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


def _fold(prepared: PreparedWeight, k: int) -> int:
    """How many products share their scales."""
    return math.gcd(*(spec.group_size or k for spec in (prepared.spec, prepared.activation)))
