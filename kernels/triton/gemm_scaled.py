"""Float contract, many rows of 8-bit float x: block-scaled tensor cores multiply the codes as they are.

For weights whose codes `tl.dot_scaled` takes (scaled.format_of) and whose scales are powers of two that 32 or more
consecutive k's share. The problem is transposed, y.T = w @ x.T, as in gemm_float; x has no scales, so its are all 1.

The layout of pack.py serves as it is. 128 bytes of a row, 32 from each of four slabs, are the codes of 128 consecutive
k's where a code has 8 bits; where it has 4 they are those of 128 k's in their low halves and of the next 128 in their
high ones, and two neighbours are put into one byte, the order that the instruction reads.

The tensor cores hold the sum of all K in float32. How they round it is not documented; docs/numerics.md says what was
measured of them, and why the bound of the float contract then holds.
"""

import torch
import triton
import triton.language as tl

from .decode import LANES, bound, rounded_to
from .gemv_float import reduce_parts

TRIP = tl.constexpr(128)  # k's of one product: half a block
ONE = tl.constexpr(127)  # the e8m0 code of scale 1


@triton.jit
def load_trip(weight, trip, rows, n, w: tl.constexpr):
    """uint8, the codes of 128 k's as tl.dot_scaled takes them: (rows, 128), or (rows, 64) pairs of 4 bits."""
    lanes = tl.arange(0, TRIP)
    half = trip % 2
    first = trip // 2 * w.bits + (4 * half if w.bits == 8 else 0)
    slab = tl.cast(first + lanes // LANES, tl.int64)
    at = (slab[None, :] * n + rows[:, None]) * LANES + (lanes % LANES)[None, :]
    codes = tl.load(weight + at, mask=(rows < n)[:, None], other=0)
    if w.bits == 4:
        codes = (codes >> (4 * half).to(tl.uint8)) & 15
        even, odd = tl.split(tl.reshape(codes, [codes.shape[0], TRIP // 2, 2]))
        codes = even | (odd << 4)
    return codes


@triton.jit
def gemm_scaled(
    x,  # (M, K) codes, uint8
    weight,  # layout of pack.py
    bias,  # (N,) float32
    out,  # (M, N), or float32 (SPLIT, M, N) when K is split
    m,
    n,
    k,
    scales_at,
    w: tl.constexpr,  # operand.Decode
    W_FORMAT: tl.constexpr,  # of tl.dot_scaled
    X_FORMAT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Grid: (blocks of N, blocks of M, SPLIT)."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    part, trips = tl.program_id(2), tl.cdiv(k, TRIP)
    per_part = tl.cdiv(trips, SPLIT)
    ones = tl.full([BLOCK_M, TRIP // LANES], ONE, tl.uint8)

    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for trip in range(bound(part * per_part), bound(min((part + 1) * per_part, trips))):
        start = trip * TRIP
        ks, starts = start + tl.arange(0, TRIP), start + tl.arange(0, TRIP // LANES) * LANES
        xs_at = x + columns.to(tl.int64)[None, :] * k + ks[:, None]
        xs = tl.load(xs_at, mask=(columns < m)[None, :] & (ks < k)[:, None], other=0)
        scales_in = weight + scales_at + (starts // w.group)[None, :] * n + rows[:, None]
        scales = tl.load(scales_in, mask=(rows < n)[:, None] & (starts < k)[None, :], other=ONE)
        codes = load_trip(weight, trip, rows, n, w)
        total = tl.dot_scaled(codes, scales, W_FORMAT, xs, ones, X_FORMAT, total)
    if HAS_BIAS and SPLIT == 1:
        total += tl.load(bias + rows, mask=rows < n, other=0.0)[:, None]
    at = tl.cast(part * m + columns, tl.int64)[None, :] * n + rows[:, None]
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    tl.store(out + at, rounded_to(total, out.dtype.element_ty), mask=inside)


def linear(x, weight, bias, w, w_format: str, x_format: str, layout, n: int, config) -> torch.Tensor:
    """x (M, K) float8 -> (M, N) bfloat16. config: configs.Config."""
    m, k = x.shape
    y = x.new_empty((m, n), dtype=torch.bfloat16)
    target = y if config.split == 1 else x.new_empty((config.split, m, n), dtype=torch.float32)
    gemm_scaled[triton.cdiv(n, config.block_n), triton.cdiv(m, config.block_m), config.split](
        *(x.view(torch.uint8), weight, bias, target, m, n, k, layout.scales_at),
        *(w, w_format, x_format, bias is not None, config.block_n, config.block_m, config.split),
        num_warps=config.warps,
        num_stages=config.stages,
    )
    if config.split > 1:
        reduce_parts(target, bias, y)
    return y
