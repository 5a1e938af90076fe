"""Float contract, many rows of x: weights are decoded in registers to x's type, tensor cores multiply in float32.

The problem is transposed, y.T = w @ x.T, so that the decoded weights are the first operand, which tensor cores of
Hopper read from registers. A value that x's type cannot hold is a sum of up to three numbers of that type (operand.
parts_of), one product each; scales are applied to float32 sums, so no weight is rounded.
"""

import torch
import triton
import triton.language as tl

from .decode import (
    LANES,
    TENSOR_SCALE,
    bound,
    decode,
    dot,
    load_codes,
    load_scales,
    load_zero_points,
    rounded_to,
)
from .gemv_float import reduce_parts


@triton.jit
def multiply(values, xs, acc, parts: tl.constexpr, shift: tl.constexpr):
    """acc + (values * 2**shift) @ xs. values: float32 (BLOCK_N, 32); xs: (32, BLOCK_M)."""
    if parts == 0:  # no sum of three numbers of x's type is the value
        return dot(values, xs.to(tl.float32), acc)
    rest = values * 2.0**shift
    for part in tl.static_range(parts):
        head = rounded_to(rest, xs.dtype)
        acc = dot(head, xs, acc)
        if part + 1 < parts:
            rest -= head.to(tl.float32)
    return acc


@triton.jit
def gemm_float(
    x,  # (M, K) float32, float16 or bfloat16
    weight,  # layout of pack.py
    bias,  # (N,) float32
    out,  # (M, N), or float32 (SPLIT, M, N) when K is split
    table,  # operand.table_of
    m,
    n,
    k,
    scales_at,
    points_at,
    w: tl.constexpr,  # operand.Decode
    PARTS: tl.constexpr,
    SHIFT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SPLIT: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Grid: (blocks of N, blocks of M, SPLIT)."""
    rows, lanes = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, LANES)
    columns, part = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M), tl.program_id(2)
    trips: tl.constexpr = 8 // UNROLL  # of the loop, for the 8 chunks of a block
    per_part = tl.cdiv(tl.cdiv(k, 256), SPLIT) * trips
    per_scale: tl.constexpr = min(w.chunks_per_scale, UNROLL)

    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    run = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    x_rows = x + columns.to(tl.int64)[None, :] * k
    for trip in range(bound(part * per_part), bound(min((part + 1) * per_part, tl.cdiv(k, UNROLL * LANES)))):
        for turn in tl.static_range(UNROLL):
            block, chunk = trip, turn
            if trips > 1:
                block, chunk = trip // trips, trip % trips * UNROLL + turn
            start = block * 256 + chunk * LANES
            ks = start + lanes
            xs = tl.load(x_rows + ks[:, None], mask=(columns < m)[None, :] & (ks < k)[:, None], other=0)
            values = decode(load_codes(weight, block, chunk, rows, lanes, n, w), table, w)
            for i in tl.static_range(tl.constexpr(w.runs)):
                group = start // w.group + i if w.group else 0
                at, inside = group * n + rows, (rows < n) & (max(start, group * w.group) < k)
                centred = values
                if w.has_zero_point:
                    centred = values - load_zero_points(weight, points_at, at, inside, table, w)[:, None]
                if w.aligned:
                    run = multiply(centred, xs, run, PARTS, SHIFT)
                else:  # x and not w is zeroed outside the group: 0 * infinity is NaN
                    here = tl.where((ks // w.group == group)[:, None], xs, 0)
                    run = multiply(centred, here, run, PARTS, SHIFT)
                if w.group and (turn + 1) % per_scale == 0:
                    total += run * load_scales(weight, scales_at, at, inside, w)[:, None]
                    run = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    if w.group == 0:
        total = run * load_scales(weight, scales_at, rows, rows < n, w)[:, None]
    if PARTS > 0 and SHIFT != 0:
        total *= 2.0**-SHIFT
    if w.scale_kind == "two_level":
        total *= tl.load(table + TENSOR_SCALE)
    if HAS_BIAS and SPLIT == 1:
        total += tl.load(bias + rows, mask=rows < n, other=0.0)[:, None]
    at = tl.cast(part * m + columns, tl.int64)[None, :] * n + rows[:, None]
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    tl.store(out + at, rounded_to(total, out.dtype.element_ty), mask=inside)


def linear(x, weight, bias, table, w, layout, n: int, parts: tuple[int, int], config) -> torch.Tensor:
    """x (M, K) -> (M, N). config: configs.Config."""
    m, k = x.shape
    y = x.new_empty((m, n))
    target = y if config.split == 1 else x.new_empty((config.split, m, n), dtype=torch.float32)
    gemm_float[triton.cdiv(n, config.block_n), triton.cdiv(m, config.block_m), config.split](
        *(x, weight, bias, target, table, m, n, k, layout.scales_at, layout.points_at),
        *(w, *parts, bias is not None, config.block_n, config.block_m, config.split, config.unroll),
        num_warps=config.warps,
        num_stages=config.stages,
    )
    if config.split > 1:
        reduce_parts(target, bias, y)
    return y
