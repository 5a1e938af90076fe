"""Exact contract: int8 tensor cores sum integers, then every float32 step of docs/numerics.md in its order.

A fold is a run of K that shares both scales. An int16 grid value is two int8 digits, high * 256 + low, and a product of
two such values up to four products of digits; int32 wraps on the way, but the sum of a fold fits (minifloat.plan).

Weights are held as integer - centre, which fits the digits, and zero points are not subtracted from each weight either:
sum a (u + centre - z) = sum a u + (centre - z) * sum a, with the sums of a's folds made once.
"""

import torch
import triton
import triton.language as tl

from .configs import split_of
from .decode import (
    LANES,
    TENSOR_SCALE,
    bound,
    decode,
    load_codes,
    load_scales,
    load_zero_points,
    rounded_to,
    to_integer,
)
from .operand import Fold


@triton.jit
def digit(integer, index: tl.constexpr):
    """int8: digit 0 is the signed low byte, digit 1 what remains above it."""
    if index == 0:
        return ((integer << 24) >> 24).to(tl.int8)
    return ((integer + 128) >> 8).to(tl.int8)


@triton.jit
def multiply(integers, a, a_at, a_inside, here, plane, acc, f: tl.constexpr):
    """acc + integers @ a. a: int8 digits, (a_digits, M, K), read at a_at + digit * plane and 0 but `here`."""
    for j in tl.static_range(tl.constexpr(f.a_digits)):
        digits = tl.load(a + j * plane + a_at, mask=a_inside, other=0)
        if not f.aligned:
            digits = tl.where(here, digits, 0)
        for i in tl.static_range(tl.constexpr(f.weight_digits)):
            if i + j == 0:
                acc = tl.dot(digit(integers, 0), digits, acc, out_dtype=tl.int32)
            else:
                acc += tl.dot(digit(integers, i), digits, out_dtype=tl.int32) << (8 * (i + j))
    return acc


@triton.jit
def fold_value(
    sums, fold, rows, columns, a_scales, a_sums, weight, table, m, n, k, scales_at, points_at,
    w: tl.constexpr, f: tl.constexpr,
):  # fmt: skip
    """float32 (BLOCK_N, BLOCK_M): V * s_w, or V * q(s_w * s_a), of one fold from its int32 sums."""
    length = f.length if f.length else k
    at = (fold * length // w.group if w.group else 0) * n + rows
    inside, a_inside = (rows < n) & (fold * length < k), (columns < m) & (fold * length < k)
    if f.sums:
        centre = tl.full([1], f.centre, tl.int32)
        if w.has_zero_point:
            centre = f.centre - to_integer(load_zero_points(weight, points_at, at, inside, table, w), w)
        a_sum = tl.load(a_sums + tl.cast(fold, tl.int64) * m + columns, mask=a_inside, other=0)
        sums += centre[:, None] * a_sum[None, :]
    value = sums.to(tl.float32) * f.product  # one rounding: the power of two is exact
    scale = load_scales(weight, scales_at, at, inside, w)[:, None]
    if f.a_group:
        group = tl.cast(fold * length // f.a_group, tl.int64)
        scale = scale * tl.load(a_scales + group * m + columns, mask=a_inside, other=0.0)[None, :]
    return value * scale


@triton.jit
def end_fold(
    acc, sums, fold, rows, columns, a_scales, a_sums, weight, out, table, m, n, k, scales_at, points_at,
    w: tl.constexpr, f: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """acc with a fold's value added, or the fold's sums stored where a second pass adds them; and sums of 0."""
    if SPLIT > 1:
        at = columns.to(tl.int64)[None, :] * n + rows[:, None]
        inside = (rows < n)[:, None] & (columns < m)[None, :] & (fold * f.length < k)
        tl.store(out + tl.cast(fold, tl.int64) * m * n + at, sums, mask=inside)
    else:
        acc += fold_value(
            sums, fold, rows, columns, a_scales, a_sums, weight, table, m, n, k, scales_at, points_at, w, f
        )
    return acc, tl.zeros(sums.shape, tl.int32)


@triton.jit
def finish(
    acc, rows, columns, a_scales, a_tensor_scale, table, bias, out, m, n,
    w: tl.constexpr, f: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """What is left to do after the folds, in the contract's order, and the store."""
    if f.a_group == 0:
        acc = acc * tl.load(a_scales + columns, mask=columns < m, other=0.0)[None, :]
    if w.scale_kind == "two_level":
        acc = acc * tl.load(table + TENSOR_SCALE)
    if f.a_two_level:
        acc = acc * tl.load(a_tensor_scale)
    if HAS_BIAS:
        acc = acc + tl.load(bias + rows, mask=rows < n, other=0.0)[:, None]
    at = columns.to(tl.int64)[None, :] * n + rows[:, None]
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    tl.store(out + at, rounded_to(acc, out.dtype.element_ty), mask=inside)


@triton.jit
def gemm_exact(
    a,  # int8 digits of the activations, (a_digits, M, K)
    a_scales,  # float32 (groups, M)
    a_sums,  # int32 (folds, M)
    a_tensor_scale,  # float32 (1,)
    weight,  # layout of pack.py
    bias,  # (N,) float32
    out,  # (M, N), or int32 sums when K is split: (SPLIT, M, N), (folds, M, N) where there are folds
    table,  # operand.table_of the weight
    m,
    n,
    k,
    scales_at,
    points_at,
    w: tl.constexpr,  # operand.Decode
    f: tl.constexpr,  # Fold
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
    plane = tl.cast(m, tl.int64) * k
    known: tl.constexpr = f.even and f.length <= UNROLL * LANES  # folds end at the same turns of every trip

    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    sums = tl.zeros([BLOCK_N, BLOCK_M], tl.int32)
    for trip in range(bound(part * per_part), bound(min((part + 1) * per_part, tl.cdiv(k, UNROLL * LANES)))):
        for turn in tl.static_range(UNROLL):
            block, chunk = trip, turn
            if trips > 1:
                block, chunk = trip // trips, trip % trips * UNROLL + turn
            start = block * 256 + chunk * LANES
            ks = start + lanes
            a_at = columns.to(tl.int64)[None, :] * k + ks[:, None]
            a_inside = (columns < m)[None, :] & (ks < k)[:, None]
            codes = load_codes(weight, block, chunk, rows, lanes, n, w)
            integers = to_integer(decode(codes, table, w), w) - f.centre
            for i in tl.static_range(tl.constexpr(f.runs)):
                fold = start // f.length + i if f.length else 0
                here = (ks // f.length == fold)[:, None] if f.length else a_inside
                sums = multiply(integers, a, a_at, a_inside, here, plane, sums, f)
                if known and (turn + 1) * LANES % f.length == 0:
                    acc, sums = end_fold(
                        acc, sums, fold, rows, columns, a_scales, a_sums, weight, out, table, m, n, k,
                        scales_at, points_at, w, f, SPLIT,
                    )  # fmt: skip
                elif f.length and not known:  # noqa: SIM102 - the first is decided by the compiler
                    if ((fold + 1) * f.length <= start + LANES) & (fold * f.length < k):
                        acc, sums = end_fold(
                            acc, sums, fold, rows, columns, a_scales, a_sums, weight, out, table, m, n, k,
                            scales_at, points_at, w, f, SPLIT,
                        )  # fmt: skip
    if SPLIT > 1:
        if f.length == 0:
            at = columns.to(tl.int64)[None, :] * n + rows[:, None]
            inside = (rows < n)[:, None] & (columns < m)[None, :]
            tl.store(out + tl.cast(part, tl.int64) * m * n + at, sums, mask=inside)
    else:
        if f.length == 0:
            acc = fold_value(
                sums, 0, rows, columns, a_scales, a_sums, weight, table, m, n, k, scales_at, points_at, w, f
            )
        finish(acc, rows, columns, a_scales, a_tensor_scale, table, bias, out, m, n, w, f, HAS_BIAS)


@triton.jit
def finish_exact(
    parts,  # int32 (count, M, N): parts of one fold, or whole folds
    a_scales, a_sums, a_tensor_scale, weight, bias, out, table, m, n, k, scales_at, points_at, count,
    w: tl.constexpr, f: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Second pass of a split K. Integer parts add up in any order; folds are scaled and added in theirs."""
    rows, columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.program_id(1) + tl.arange(0, 1)
    at = columns.to(tl.int64)[None, :] * n + rows[:, None]
    acc = tl.zeros([BLOCK_N, 1], tl.float32)
    sums = tl.zeros([BLOCK_N, 1], tl.int32)
    for i in range(bound(count)):
        part = tl.load(parts + tl.cast(i, tl.int64) * m * n + at, mask=(rows < n)[:, None], other=0)
        if f.length:
            acc += fold_value(
                part, i, rows, columns, a_scales, a_sums, weight, table, m, n, k, scales_at, points_at, w, f
            )
        else:
            sums += part
    if f.length == 0:
        acc = fold_value(sums, 0, rows, columns, a_scales, a_sums, weight, table, m, n, k, scales_at, points_at, w, f)
    finish(acc, rows, columns, a_scales, a_tensor_scale, table, bias, out, m, n, w, f, HAS_BIAS)


def linear(activations, weight, bias, table, w, layout, n: int, k: int, f: Fold, dtype, config) -> torch.Tensor:
    """activations (quantize.Digits of M rows) -> (M, N). config: configs.Config."""
    digits, scales, sums, tensor_scale = activations
    m = digits.shape[1]
    y = digits.new_empty((m, n), dtype=dtype)
    split = split_of(f.length, config)
    count = k // f.length if f.length else split
    target = y if split == 1 else digits.new_empty((count, m, n), dtype=torch.int32)
    common = (scales, sums, tensor_scale, weight, bias)
    numbers = (m, n, k, layout.scales_at, layout.points_at)
    options = {"num_stages": config.stages, "enable_fp_fusion": False}
    gemm_exact[triton.cdiv(n, config.block_n), triton.cdiv(m, config.block_m), split](
        *(digits, *common, target, table, *numbers),
        *(w, f, bias is not None, config.block_n, config.block_m, split, config.unroll),
        num_warps=config.warps,
        **options,
    )
    if split > 1:
        finish_exact[triton.cdiv(n, 128), m](
            *(target, *common, y, table, *numbers, count, w, f, bias is not None, 128), num_warps=4, **options
        )
    return y
