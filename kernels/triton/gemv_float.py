"""Float contract, few rows of x: each program streams some outputs' weights once, and x comes out of the cache."""

import torch
import triton
import triton.language as tl

from .decode import CHUNKS, LANES, TENSOR_SCALE, bound, decode, load_codes, load_scales, load_zero_points, rounded_to


@triton.jit
def gemv_float(
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
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Grid: (blocks of N, M, SPLIT)."""
    rows, lanes = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, LANES)
    row, part = tl.program_id(1), tl.program_id(2)
    blocks = tl.cdiv(k, 256)
    per_part = tl.cdiv(blocks, SPLIT)

    total = tl.zeros([BLOCK_N, LANES], tl.float32)
    run = tl.zeros([BLOCK_N, LANES], tl.float32)
    for block in range(bound(part * per_part), bound(min((part + 1) * per_part, blocks))):
        for chunk in tl.static_range(CHUNKS):
            ks = block * 256 + chunk * LANES + lanes
            xs = tl.load(x + tl.cast(row, tl.int64) * k + ks, mask=ks < k, other=0).to(tl.float32)[None, :]
            values = decode(load_codes(weight, block, chunk, rows, lanes, n, w), table, w)
            if w.aligned:
                group = (block * 256 + chunk * LANES) // w.group if w.group else 0
                at, inside = group * n + rows, (rows < n) & (block * 256 + chunk * LANES < k)
                if w.has_zero_point:
                    values -= load_zero_points(weight, points_at, at, inside, table, w)[:, None]
                run += values * xs
                if w.group and (chunk + 1) % w.chunks_per_scale == 0:
                    total += run * load_scales(weight, scales_at, at, inside, w)[:, None]
                    run = tl.zeros([BLOCK_N, LANES], tl.float32)
            else:  # a scale for each element
                at = (ks // w.group)[None, :] * n + rows[:, None]
                inside = (rows < n)[:, None] & (ks < k)[None, :]
                if w.has_zero_point:
                    values -= load_zero_points(weight, points_at, at, inside, table, w)
                total += (values * load_scales(weight, scales_at, at, inside, w)) * xs
    if w.group == 0:
        total = run * load_scales(weight, scales_at, rows, rows < n, w)[:, None]
    y = tl.sum(total, axis=1)
    if w.scale_kind == "two_level":
        y *= tl.load(table + TENSOR_SCALE)
    if HAS_BIAS and SPLIT == 1:
        y += tl.load(bias + rows, mask=rows < n, other=0.0)
    tl.store(out + tl.cast(part * m + row, tl.int64) * n + rows, rounded_to(y, out.dtype.element_ty), mask=rows < n)


@triton.jit
def sum_parts(parts, bias, out, size, n, HAS_BIAS: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """Second pass of a split K: float32 (SPLIT, size) -> out (size,), always in the same order."""
    at = tl.cast(tl.program_id(0), tl.int64) * BLOCK + tl.arange(0, BLOCK)
    y = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(SPLIT):
        y += tl.load(parts + part * size + at, mask=at < size, other=0.0)
    if HAS_BIAS:
        y += tl.load(bias + at % n, mask=at < size, other=0.0)
    tl.store(out + at, rounded_to(y, out.dtype.element_ty), mask=at < size)


def linear(x, weight, bias, table, w, layout, n: int, config) -> torch.Tensor:
    """x (M, K) -> (M, N). config: block_n, split, warps, stages."""
    m, k = x.shape
    y = x.new_empty((m, n))
    target = y if config.split == 1 else x.new_empty((config.split, m, n), dtype=torch.float32)
    gemv_float[triton.cdiv(n, config.block_n), m, config.split](
        *(x, weight, bias, target, table, m, n, k, layout.scales_at, layout.points_at),
        *(w, bias is not None, config.block_n, config.split),
        num_warps=config.warps,
        num_stages=config.stages,
    )
    if config.split > 1:
        reduce_parts(target, bias, y)
    return y


def reduce_parts(parts: torch.Tensor, bias, y: torch.Tensor) -> None:
    """y = the sum of parts along their first axis, plus bias."""
    size = y.numel()
    sum_parts[(triton.cdiv(size, 256),)](
        parts, bias, y, size, y.shape[1], bias is not None, parts.shape[0], 256, num_warps=4
    )
