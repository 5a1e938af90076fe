"""The weight layout that every kernel streams, made once from canonical storage, and the way back.

K is cut into blocks of 256, a block into 8 chunks of 32 consecutive k's. A block is `bits` slabs of N rows x 32 bytes,
so that the 32 lanes of a chunk, for consecutive outputs, are consecutive bytes: loads are contiguous whatever the
width. A code is split into planes of 8, 4, 2 or 1 bits (7 bits: 4 + 2 + 1), low bits in the widest; a plane of width p
has p slabs, and byte (slab s, row n, lane l) holds chunks s, s + p, s + 2p, ..., lowest bits first. Wider planes come
first. K is padded to a multiple of 256 with code 0 (x is read as 0 there); nothing else is stored beyond `bits` per
code.

After the codes, from the next multiple of 16 bytes: scales as stored, (groups, N), then zero points, (groups, N) codes.
One scale per tensor is repeated for every output.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .decode import CHUNKS, LANES, load_codes
from .operand import SCALE_BYTES

BLOCK_K = 256


class Layout(NamedTuple):
    """Byte offsets in a packed weight of N outputs."""

    blocks: int
    groups: int
    scales_at: int
    points_at: int
    bytes: int


def layout_of(n: int, k: int, w) -> Layout:
    """Sizes of the layout of an (N, K) weight that is decoded by w (operand.Decode)."""
    blocks, groups = -(-k // BLOCK_K), k // w.group if w.group else 1
    scales_at = -(-blocks * w.bits * n * 32 // 16) * 16
    points_at = scales_at + groups * n * SCALE_BYTES[w.scale_kind]
    return Layout(blocks, groups, scales_at, points_at, points_at + (groups * n if w.has_zero_point else 0))


@triton.jit
def code_at(packed, row, k, row_bytes, K, bits: tl.constexpr, inside):
    """int32: code k of a row in canonical storage; it may straddle two bytes."""
    inside = inside & (k < K)
    at = tl.cast(row, tl.int64) * row_bytes + (k * bits) // 8
    low = tl.load(packed + at, mask=inside, other=0).to(tl.int32)
    straddles = (k * bits) % 8 + bits > 8
    high = tl.load(packed + at + 1, mask=inside & straddles, other=0).to(tl.int32)
    return ((low | (high << 8)) >> ((k * bits) % 8)) & ((1 << bits) - 1)


@triton.jit
def pack_planes(packed, weight, n, k, row_bytes, bits: tl.constexpr, width: tl.constexpr, ROWS: tl.constexpr):
    """One plane of one block of some rows: canonical storage -> layout. Grid: (row blocks, blocks of K, slabs)."""
    low: tl.constexpr = bits & (-2 * width)
    rows, lanes = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, LANES)
    block, slab = tl.program_id(1), tl.program_id(2)
    inside = (rows < n)[:, None]
    byte = (rows[:, None] + lanes[None, :]) * 0
    for i in tl.static_range(8 // width):
        ks = block * 256 + (slab + i * width) * LANES + lanes
        code = code_at(packed, rows[:, None], ks[None, :], row_bytes, k, bits, inside)
        byte |= ((code >> low) & ((1 << width) - 1)) << (i * width)
    at = (tl.cast(block * bits + low + slab, tl.int64) * n + rows)[:, None] * LANES + lanes[None, :]
    tl.store(weight + at, byte.to(tl.uint8), mask=inside)


@triton.jit
def unpack_planes(weight, codes, n, k, w: tl.constexpr, ROWS: tl.constexpr):
    """Layout -> one byte per code, (n, k). Grid: (row blocks, blocks of K)."""
    rows, lanes, block = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, LANES), tl.program_id(1)
    for chunk in tl.static_range(CHUNKS):
        ks = block * 256 + chunk * LANES + lanes
        code = load_codes(weight, block, chunk, rows, lanes, n, w)
        at = rows.to(tl.int64)[:, None] * k + ks[None, :]
        tl.store(codes + at, code.to(tl.uint8), mask=(rows < n)[:, None] & (ks < k)[None, :])


@triton.jit
def unpack_rows(packed, codes, n, k, row_bytes, bits: tl.constexpr, BLOCK: tl.constexpr):
    """Canonical storage -> one byte per code, (n, k). Grid: (rows, blocks of BLOCK codes)."""
    row, ks = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    code = code_at(packed, row, ks, row_bytes, k, bits, row < n)
    tl.store(codes + tl.cast(row, tl.int64) * k + ks, code.to(tl.uint8), mask=ks < k)


@triton.jit
def pack_rows(codes, packed, n, k, row_bytes, bits: tl.constexpr, BLOCK: tl.constexpr):
    """One byte per code -> canonical storage: each bit of a byte is fetched from its code. Grid: (rows, bytes)."""
    row, at = tl.cast(tl.program_id(0), tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = at * 0
    for i in tl.static_range(8):
        bit = at * 8 + i
        inside = (bit // bits < k) & (at < row_bytes)
        code = tl.load(codes + row * k + bit // bits, mask=inside, other=0).to(tl.int32)
        byte |= ((code >> (bit % bits)) & 1) << i
    tl.store(packed + row * row_bytes + at, byte.to(tl.uint8), mask=at < row_bytes)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes (n, k) -> canonical storage (n, ceil(k * bits / 8))."""
    n, k = codes.shape
    out = codes.new_empty((n, -(-k * bits // 8)))
    if out.numel():
        pack_rows[n, triton.cdiv(out.shape[1], 256)](codes, out, n, k, out.shape[1], bits, 256)
    return out


def unpack(packed: torch.Tensor, bits: int, k: int) -> torch.Tensor:
    """Canonical storage -> uint8 codes (n, k)."""
    out = packed.new_empty((packed.shape[0], k))
    if out.numel():
        unpack_rows[out.shape[0], triton.cdiv(k, 256)](packed, out, *out.shape, packed.shape[1], bits, 256)
    return out


def pack_weight(packed, scales, points, n: int, k: int, w) -> torch.Tensor:
    """Canonical codes, scales (n, groups) or (1, 1) as raw elements, zero point codes or None -> the layout."""
    layout = layout_of(n, k, w)
    out = packed.new_empty(layout.bytes)
    for width in (8, 4, 2, 1):
        if w.bits & width and n and k:
            grid = (triton.cdiv(n, 32), layout.blocks, width)
            pack_planes[grid](packed, out, n, k, packed.shape[1], w.bits, width, 32)
    for start, part in ((layout.scales_at, scales), (layout.points_at, points)):
        if part is not None:
            spread = part.expand(n, layout.groups).t().reshape(-1).contiguous().view(torch.uint8)
            out[start : start + spread.numel()] = spread
    return out


def codes_of(weight: torch.Tensor, n: int, k: int, w) -> torch.Tensor:
    """uint8 (n, k): the codes in a packed weight."""
    codes = weight.new_empty((n, k))
    if codes.numel():
        unpack_planes[triton.cdiv(n, 32), triton.cdiv(k, BLOCK_K)](weight, codes, n, k, w, 32)
    return codes


def scales_of(weight: torch.Tensor, n: int, k: int, w, dtype: torch.dtype) -> torch.Tensor:
    """(n, groups) scales as stored."""
    layout = layout_of(n, k, w)
    return weight[layout.scales_at : layout.points_at].view(dtype).reshape(layout.groups, n).t()


def points_of(weight: torch.Tensor, n: int, k: int, w) -> torch.Tensor:
    """uint8 (n, groups): codes of the zero points; (0, groups) without."""
    layout = layout_of(n, k, w)
    rows = n if w.has_zero_point else 0
    return weight[layout.points_at : layout.points_at + rows * layout.groups].reshape(layout.groups, rows).t()
