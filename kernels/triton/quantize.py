"""Activations: scale and codes in one kernel (per row or group), and back; each float32 step of docs/numerics.md.

Divisions are tl.div_rn, because `/` is approximate on GPUs, and kernels are launched without fused multiply-adds.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from . import operand
from .decode import bound
from .operand import Encode

THRESHOLDS, VALUES = tl.constexpr(operand.THRESHOLDS), tl.constexpr(operand.VALUES)
SCALE_THRESHOLDS, SCALE_VALUES = tl.constexpr(operand.SCALE_THRESHOLDS), tl.constexpr(operand.SCALE_VALUES)
CODES = tl.constexpr(operand.CODES)
SMALLEST = tl.constexpr(2.0**-126)
LARGEST = tl.constexpr(3.4028234663852886e38)
LARGEST_BFLOAT16 = tl.constexpr(3.3895313892515355e38)
ROUND = tl.constexpr(
    12582912.0
)  # 1.5 * 2**23: adding and subtracting it rounds |t| < 2**22 to the nearest even integer
NAN_BITS = tl.constexpr(0x7FC00000)


@triton.jit
def bits_of(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def float_of(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def nan_where(bad, x):
    return tl.where(bad, float_of(tl.full([1], NAN_BITS, tl.int32)), x)


@triton.jit
def clamp(s):
    """s kept within normal positive numbers; NaN stays."""
    s = tl.where(s < SMALLEST, SMALLEST, s)
    return tl.where(s > LARGEST, LARGEST, s)


@triton.jit
def rank_of(table, t):
    """int32: how many of 255 ascending thresholds t has reached."""
    rank = bits_of(t) * 0
    for i in tl.static_range(8):
        rank += tl.where(t >= tl.load(table + rank + ((128 >> i) - 1)), 128 >> i, 0)
    return rank


@triton.jit
def stored_scale(raw, table, e: tl.constexpr):
    """The scale as its format holds it."""
    if e.scale_kind == "two_level":
        return nan_where(raw != raw, tl.load(table + SCALE_VALUES + 1 + rank_of(table + SCALE_THRESHOLDS, raw)))
    s = clamp(raw)
    if e.scale_kind == "bfloat16":
        bits = bits_of(tl.where(s > LARGEST_BFLOAT16, LARGEST_BFLOAT16, s))
        s = nan_where(raw != raw, float_of((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536))
    return s


@triton.jit
def symmetric_scale(top, tensor_scale, table, e: tl.constexpr):
    """The scale of elements whose largest magnitude is `top`."""
    if e.scale_kind == "power_of_two":  # OCP MX: floor(log2(absmax)) - floor(log2(largest element))
        subnormal = top < SMALLEST
        normal = tl.where(subnormal, top * 16777216.0, top)  # by 2**24
        exponent = (bits_of(normal) >> 23) - 127 - tl.where(subnormal, 24, 0) - e.scale_exponent
        exponent = tl.where(top == 0, -126, tl.minimum(tl.maximum(exponent, -126), 127))
        return nan_where(top != top, float_of((exponent + 127) << 23))
    raw = tl.div_rn(top, tl.full([1], e.scale_max, tl.float32))
    if e.scale_kind == "two_level":
        raw = tl.div_rn(raw, tensor_scale)
    return stored_scale(raw, table, e)


@triton.jit
def second_level(top, e: tl.constexpr):
    """The tensor's scale, from the largest magnitude in it."""
    return clamp(tl.div_rn(top, tl.full([1], e.tensor_max, tl.float32)))


@triton.jit
def affine_scale(low, high, table, e: tl.constexpr):
    """Scale and zero point so that [low, high], which holds 0, fits."""
    scale = stored_scale(tl.div_rn(high - low, tl.full([1], e.highest - e.lowest, tl.float32)), table, e)
    point = ((e.lowest - tl.div_rn(low, scale)) + ROUND) - ROUND
    return scale, tl.minimum(tl.maximum(point, e.lowest), e.highest)


@triton.jit
def ends_of(tile, inside, e: tl.constexpr):
    """Smallest and largest of what decides a scale in each row of the tile; NaN if a row holds NaN or infinity."""
    bits = tl.where(inside, bits_of(tile), 0)
    finite = tl.max(bits & 0x7FFFFFFF, axis=1) < 0x7F800000
    if e.has_zero_point:
        low = tl.minimum(tl.min(tl.where(inside, tile, 0.0), axis=1), 0.0)
        high = tl.maximum(tl.max(tl.where(inside, tile, 0.0), axis=1), 0.0)
    else:  # non-negative floats order like their bits
        low = tl.max(bits, axis=1).to(tl.float32) * 0.0
        high = float_of(tl.maximum(tl.max(bits & 0x7FFFFFFF if e.is_signed else bits, axis=1), 0))
    return nan_where(finite == 0, low), nan_where(finite == 0, high)


@triton.jit
def round_to_value(t, point, table, e: tl.constexpr):
    """The value that t rounds to, the nearest one, ties to the even code; with a zero point minus it."""
    if e.kind == "integer":
        t = tl.where(t > -1e6, t, -1e6)
        t = tl.where(t < 1e6, t, 1e6)
        r = ((t + ROUND) - ROUND) + point
        r = tl.where(r > e.lowest, r, e.lowest)
        return tl.where(r < e.highest, r, e.highest) - point
    if e.kind == "minifloat":  # the same trick with 1.5 * 2**23 units of the result's last place
        t = tl.where(t > e.lowest, t, e.lowest)
        t = tl.where(t < e.highest, t, e.highest)
        bits = bits_of(t)
        exponent = tl.maximum(bits & 0x7F800000, (e.min_exponent + 127) << 23)
        magic = float_of(exponent + (((23 - e.mantissa_bits) << 23) | 0x400000))
        magnitude = (float_of(bits & 0x7FFFFFFF) + magic) - magic
        return float_of(bits_of(magnitude) | (bits & -2147483648))
    code = tl.load(table + CODES + rank_of(table + THRESHOLDS, t)).to(tl.int32)
    return tl.load(table + VALUES + code)


@triton.jit
def code_of(t, table, e: tl.constexpr):
    """int32: the code that t rounds to, for formats without zero point; NaN's own code where there is one."""
    code = tl.load(table + CODES + rank_of(table + THRESHOLDS, t)).to(tl.int32)
    if e.negative_zero_code >= 0:
        code = tl.where((tl.load(table + VALUES + code) == 0) & (bits_of(t) < 0), e.negative_zero_code, code)
    return tl.where(t != t, e.nan_code if e.nan_code >= 0 else 0, code)


@triton.jit
def scales_of(x, ends, rows_k, tiles, base, inside_group, group, table, e: tl.constexpr, LENGTH: tl.constexpr):
    """Scale, zero point and second level of each group of this program: (GROUPS,) each."""
    if e.granularity == "tensor":
        low, high = tl.load(ends + tiles * 0), tl.load(ends + 1 + tiles * 0)
    else:
        low, high = tl.zeros(tiles.shape, tl.float32), tl.zeros(tiles.shape, tl.float32)
        lanes = tl.arange(0, LENGTH)
        for start in range(0, bound(group), LENGTH):
            inside = inside_group[:, None] & (start + lanes < group)[None, :]
            tile = tl.load(x + base[:, None] + (start + lanes)[None, :], mask=inside, other=0).to(tl.float32)
            tile_low, tile_high = ends_of(tile, inside, e)
            low = tl.where((tile_low < low) | (tile_low != tile_low), tile_low, low)
            high = tl.where((tile_high > high) | (tile_high != tile_high), tile_high, high)
    tensor_scale = tl.full([1], 1.0, tl.float32)
    if e.scale_kind == "two_level":
        tensor_scale = second_level(tl.load(ends + 1 + tl.arange(0, 1)), e)
    if e.has_zero_point:
        scale, point = affine_scale(low, high, table, e)
        return scale, point, tensor_scale
    return symmetric_scale(high, tensor_scale, table, e), low * 0.0, tensor_scale


@triton.jit
def quantize(
    x,  # (M, K) float32, float16 or bfloat16
    ends,  # float32 (2,): smallest and largest of the whole tensor where a scale depends on it
    out,  # int8 digits (DIGITS, M, K), or uint8 codes (M, K) when DIGITS is 0
    scales,  # float32 (M, groups) with these strides; read instead of written when GIVEN
    points,  # float32, the same
    tensor_scale,  # float32 (1,), the same
    table,  # operand.table_of
    k,
    group,  # elements that share a scale
    groups,
    row_stride,
    group_stride,
    plane,  # M * K
    e: tl.constexpr,  # operand.Encode
    DIGITS: tl.constexpr,
    GIVEN: tl.constexpr,
    GROUPS: tl.constexpr,  # groups of a program
    LENGTH: tl.constexpr,  # elements of a group at a time
):
    """Grid: (M, blocks of groups)."""
    row = tl.cast(tl.program_id(0), tl.int64)
    mine = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    inside_group = mine < groups
    base = row * k + mine * group
    at = row * row_stride + mine.to(tl.int64) * group_stride
    if GIVEN:
        scale = tl.load(scales + at, mask=inside_group, other=1.0)
        point = tl.load(points + at, mask=inside_group, other=0.0)
        second = tl.load(tensor_scale + tl.arange(0, 1))
    else:
        scale, point, second = scales_of(x, ends, k, mine, base, inside_group, group, table, e, LENGTH)
        tl.store(scales + at, scale, mask=inside_group)
        tl.store(points + at, point, mask=inside_group)
        tl.store(tensor_scale + tl.arange(0, 1), second, mask=tl.arange(0, 1) + row + tl.program_id(1) == 0)
    step = (scale * second)[:, None]
    lanes = tl.arange(0, LENGTH)
    for start in range(0, bound(group), LENGTH):
        inside = inside_group[:, None] & (start + lanes < group)[None, :]
        to = base[:, None] + (start + lanes)[None, :]
        t = tl.div_rn(tl.load(x + to, mask=inside, other=0).to(tl.float32), step)
        if DIGITS == 0:
            if e.has_zero_point:
                code = (round_to_value(t, point[:, None], table, e) + point[:, None]).to(tl.int32)
            else:
                code = code_of(t, table, e)
            tl.store(out + to, (code & ((1 << e.bits) - 1)).to(tl.uint8), mask=inside)
        else:  # a scale of NaN carries the NaN to the result, so the digit may be anything: 0
            value = tl.where(step == step, round_to_value(t, point[:, None], table, e), 0.0)
            grid = (value * e.to_grid).to(tl.int32)
            low = (grid << 24) >> 24
            tl.store(out + to, low.to(tl.int8), mask=inside)
            if DIGITS == 2:
                tl.store(out + plane + to, ((grid - low) >> 8).to(tl.int8), mask=inside)


@triton.jit
def dequantize_codes(
    codes, scales, points, out, table, size, group, second, HAS_POINTS: tl.constexpr, BLOCK: tl.constexpr
):
    """out = (value - zero point) * (scale * second level), float32, element by element."""
    at = tl.cast(tl.program_id(0), tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(table + VALUES + tl.load(codes + at, mask=inside, other=0).to(tl.int32))
    if HAS_POINTS:
        value -= tl.load(points + at // group, mask=inside, other=0.0)
    step = tl.load(scales + at // group, mask=inside, other=0.0) * tl.load(second)
    tl.store(out + at, value * step, mask=inside)


class Digits(NamedTuple):
    """Quantized activations as gemm_exact takes them."""

    digits: torch.Tensor  # int8 (1 or 2, M, K)
    scales: torch.Tensor  # float32 (groups, M)
    sums: torch.Tensor  # int32 (folds, M): sums of the digits' integers; the scales' memory where not needed
    tensor_scale: torch.Tensor  # float32 (1,)


def _launch(x, e: Encode, group: int, out, digits: int, table, given=None):
    """Scales and zero points, (M, groups) beside codes and (groups, M) beside digits, and the second level (1,)."""
    m, k = x.shape
    groups = k // group if group else 1
    group = group or k
    ends = x  # not read
    if given is None and (e.granularity == "tensor" or e.scale_kind == "two_level"):
        ends = _ends_of_tensor(x, e)
    new = lambda *shape: x.new_empty(shape, dtype=torch.float32)  # noqa: E731
    shape, strides = ((groups, m), (1, m)) if digits else ((m, groups), (groups, 1))
    scales, points, second = given or (new(*shape), new(*shape), new(1))
    length = min(triton.next_power_of_2(max(group, 1)), 1024)
    tile = max(1, min(1024 // length, triton.next_power_of_2(groups)))
    if m and k:
        quantize[m, triton.cdiv(groups, tile)](
            *(x, ends, out, scales, points, second, table, k, group, groups, *strides, m * k),
            *(e, digits, given is not None, tile, length),
            num_warps=4,
            enable_fp_fusion=False,
        )
    return scales, points, second


def _ends_of_tensor(x: torch.Tensor, e: Encode) -> torch.Tensor:
    """float32 (2,): 0 and the largest magnitude, or the two ends that a zero point is found from; NaN as in ends_of."""
    if x.numel() == 0:
        return x.new_zeros(2, dtype=torch.float32)
    low, high = x.float().aminmax()
    finite = torch.isfinite(low) & torch.isfinite(high)
    high = torch.maximum(-low, high) if e.is_signed and not e.has_zero_point else high
    ends = torch.stack([low.clamp(max=0.0), high.clamp(min=0.0)])
    return torch.where(finite, ends, torch.nan)


def quantize_digits(x, e: Encode, group: int, digits: int, table, fold: int, sums: bool) -> Digits:
    """x (M, K) -> what gemm_exact takes. group: 0 for one scale per row or tensor; fold: length of a run to sum."""
    out = x.new_empty((digits, *x.shape), dtype=torch.int8)
    scales, _, second = _launch(x, e, group, out, digits, table)
    totals = scales
    if sums:
        runs = out.view(digits, x.shape[0], x.shape[1] // fold, fold).sum(-1, dtype=torch.int32)
        totals = (runs[0] if digits == 1 else runs[0] + 256 * runs[1]).t().contiguous()
    return Digits(out, scales, totals, second)


def quantize_codes(x, e: Encode, group: int, table, given=None):
    """x (M, K) -> uint8 codes (M, K), float32 scales and zero points (M, groups), second level (1,).

    given: scales, zero points and second level to use instead of finding them.
    """
    codes = x.new_empty(x.shape, dtype=torch.uint8)
    return codes, *_launch(x, e, group, codes, 0, table, given)


def dequantize(codes, scales, points, second, table) -> torch.Tensor:
    """float32 (M, K) from uint8 codes (M, K), scales and zero points (M, groups) or None, second level (1,)."""
    out = codes.new_empty(codes.shape, dtype=torch.float32)
    if out.numel():
        group = codes.shape[1] // scales.shape[1]
        dequantize_codes[(triton.cdiv(codes.numel(), 1024),)](
            *(codes, scales, scales if points is None else points, out, table, codes.numel(), group, second),
            *(points is not None, 1024),
            num_warps=4,
            enable_fp_fusion=False,
        )
    return out
