"""Device helpers that the kernels share: codes out of the weight layout (pack.py), values out of codes, scales."""

import triton
import triton.language as tl

from . import operand

TENSOR_SCALE = tl.constexpr(operand.TENSOR_SCALE)  # its place in a table
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
LANES = tl.constexpr(32)  # consecutive k's of a chunk: one byte each in a slab, and the K of one tensor-core product
CHUNKS = tl.constexpr(8)  # chunks of a block of 256 k's


@triton.jit
def load_field(weight, block, chunk, rows, lanes, n, w: tl.constexpr, width: tl.constexpr):
    """int32 (rows, 32): the `width` bits that one plane holds of the codes, at their place in the code."""
    low: tl.constexpr = w.bits & (-2 * width)  # wider planes come first: so many slabs, and so many bits of the code
    slab = tl.cast(block * w.bits + low + chunk % width, tl.int64)
    at = (slab * n + rows)[:, None] * LANES + lanes[None, :]
    byte = tl.load(weight + at, mask=(rows < n)[:, None], other=0).to(tl.int32)
    return ((byte >> (width * (chunk // width))) & ((1 << width) - 1)) << low


@triton.jit
def load_codes(weight, block, chunk, rows, lanes, n, w: tl.constexpr):
    """int32 (rows, 32): the codes of k = 256 * block + 32 * chunk + lanes."""
    codes = (rows[:, None] + lanes[None, :]) * 0
    if w.bits & 8:
        codes |= load_field(weight, block, chunk, rows, lanes, n, w, 8)
    if w.bits & 4:
        codes |= load_field(weight, block, chunk, rows, lanes, n, w, 4)
    if w.bits & 2:
        codes |= load_field(weight, block, chunk, rows, lanes, n, w, 2)
    if w.bits & 1:
        codes |= load_field(weight, block, chunk, rows, lanes, n, w, 1)
    return codes


@triton.jit
def decode(codes, table, w: tl.constexpr):
    """float32: the value of each code, exactly."""
    if w.kind == "affine":
        # 2**23 + u has u in its low bits: an OR and a subtraction, where a conversion runs at a quarter of the rate.
        number = ((codes ^ w.flip) | 0x4B000000).to(tl.float32, bitcast=True)
        if w.step == 1:
            return number - (8388608.0 - w.low)
        return (number - 8388608.0) * w.step + w.low
    if w.kind == "minifloat":
        sign_bits: tl.constexpr = 1 if w.is_signed else 0
        pattern = (codes & ((1 << (w.bits - sign_bits)) - 1)) << (23 - w.mantissa_bits)
        if w.is_signed:
            pattern |= (codes >> (w.bits - 1)) << 31
        return pattern.to(tl.float32, bitcast=True) * w.multiplier  # exact, also where the format is subnormal
    # From shared memory: a load from `table` for each code takes more instructions and three times the registers.
    entries = tl.load(table + w.table + tl.arange(0, 1 << w.bits))
    return tl.reshape(tl.gather(entries, tl.ravel(codes), 0), codes.shape)


@triton.jit
def to_integer(value, w: tl.constexpr):
    """int32: the grid integer of a value, within int16: it is what the addition leaves in the low bits."""
    return ((value + w.magic).to(tl.int32, bitcast=True) << 16) >> 16


@triton.jit
def load_scales(weight, scales_at, at, mask, w: tl.constexpr):
    """float32: scales as stored, from element `at` of the scales that start at byte `scales_at` of the layout."""
    base = weight + scales_at
    if w.scale_kind == "float32":
        return tl.load(base.to(tl.pointer_type(tl.float32)) + at, mask=mask, other=0.0)
    if w.scale_kind == "bfloat16":
        half = tl.load(base.to(tl.pointer_type(tl.uint16)) + at, mask=mask, other=0)
        return (half.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    code = tl.load(base + at, mask=mask, other=0).to(tl.int32)
    if w.scale_kind == "power_of_two":  # code 0 is 2**-127, a subnormal
        return tl.where(code == 0, 0x400000, code << 23).to(tl.float32, bitcast=True)
    pattern = ((code & 127) << (23 - w.scale_mantissa_bits)) | ((code >> 7) << 31)
    return pattern.to(tl.float32, bitcast=True) * w.scale_multiplier


@triton.jit
def load_zero_points(weight, points_at, at, mask, table, w: tl.constexpr):
    """float32: zero points are stored as codes of the format itself."""
    return decode(tl.load(weight + points_at + at, mask=mask, other=0).to(tl.int32), table, w)


@triton.jit
def bound(x):
    """A loop's end. The interpreter cannot make an integer of it with numpy 2.4, so that is done here."""
    if INTERPRETED:
        return x.handle.data.item()
    return x


@triton.jit
def rounded_to(value, like: tl.constexpr):
    """float32 -> the type `like`, to nearest even. The interpreter cuts bfloat16 off instead, so round it by hand."""
    if INTERPRETED and like == tl.bfloat16:
        bits = value.to(tl.int32, bitcast=True)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        value = tl.where(value == value, even, bits).to(tl.float32, bitcast=True)
    return value.to(like)


@triton.jit
def dot(a, b, acc):
    """acc + a @ b in float32. The interpreter multiplies bfloat16 as raw 16-bit integers, so widen it there."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")
