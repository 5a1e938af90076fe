"""Specs and plans as the byte records that the kernels read (kernels/cpu/plan.h, field by field)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from .. import _C
from ..formats import Format, QuantSpec
from ..formats.encoding import line
from ..plan import Plan

GRANULARITIES = {"tensor": 0, "row": 1, "group": 2}
SCALE_KINDS = {"float32": 0, "bfloat16": 1, "e8m0fnu": 2, "e4m3fn": 3}
CARRIERS = {"float": 0, "int8": 1, "int16": 2, "float64": 3, "wide": 4, "int16_windows": 5}
BY_TABLE, BY_INTEGER, BY_MINIFLOAT = 0, 1, 2

OPERAND = np.dtype(
    [
        *[(name, "<i4") for name in ("bits", "value_count", "negative_zero_code", "nan_code", "code_flip")],
        *[(name, "<i4") for name in ("granularity", "group_size", "scale_kind", "has_zero_point", "is_signed")],
        *[
            (name, "<i4")
            for name in ("scale_exponent", "encode_kind", "mantissa_bits", "min_exponent", "unit", "reserved")
        ],
        *[(name, "<f4") for name in ("scale_max", "lowest", "highest", "tensor_scale")],
        ("thresholds", "<f4", 256),
        ("codes", "u1", 256),
        ("values", "<f4", 256),
        ("grid", "<i4", 256),
        ("significand", "<i4", 256),
        ("shift", "<i4", 256),
        ("scale_thresholds", "<f4", 256),
        ("scale_values", "<f4", 256),
    ]
)
PLAN = np.dtype(
    [
        ("magic", "<u8"),
        *[
            (name, "<i4")
            for name in (
                "version",
                "bytes",
                "carrier",
                "offset",
                "depth",
                "signed_depth",
                "unit",
                "largest_activation",
            )
        ],
        *[(name, "<i8") for name in ("n", "k", "fold", "fold_padded", "folds", "k_padded")],
        ("weight", OPERAND),
        ("activation", OPERAND),
    ]
)
MAGIC, VERSION = 0x31746F6C666E696D, 3
assert PLAN.itemsize == _C.PLAN_BYTES and OPERAND.itemsize == _C.OPERAND_BYTES, "records.py and plan.h disagree"


@cache
def _operand(spec: QuantSpec) -> np.ndarray:
    f = spec.format
    record = np.zeros((), OPERAND)
    ranks = line(f)
    values, codes = ranks.values[1:-1], ranks.codes[1:-1]
    record["bits"] = f.bits
    record["value_count"] = len(values)
    record["negative_zero_code"] = -1 if f.negative_zero_code is None else f.negative_zero_code
    record["nan_code"] = -1 if f.nan_code is None else f.nan_code
    record["code_flip"] = 1 << (f.bits - 1) if f.kind == "int" and f.signed else 0
    record["granularity"] = GRANULARITIES[spec.granularity]
    record["group_size"] = spec.group_size or 0
    record["scale_kind"] = SCALE_KINDS[spec.scale_format]
    record["has_zero_point"] = spec.zero_point
    record["is_signed"] = f.signed
    record["scale_exponent"] = math.frexp(f.scale_max)[1] - 1
    record["unit"] = f.unit
    record["scale_max"], record["lowest"], record["highest"] = f.scale_max, f.min, f.max
    record["tensor_scale"] = 1
    record["thresholds"] = rank_thresholds(values, ranks.tie_up[1:-1])
    record["codes"][: len(codes)] = codes
    record["codes"][len(codes) :] = codes[-1]
    record["values"] = np.nan
    record["values"][: len(f.values)] = np.where(f.is_number, f.values, np.nan)
    if f.grid_max < 2**31:
        record["grid"][: len(f.grid)] = f.grid
    record["significand"][: len(f.grid)], record["shift"][: len(f.grid)] = _significands(f)
    if f.kind == "int":
        record["encode_kind"] = BY_INTEGER
    elif f.kind == "float" and f.mantissa_bits and f.signed and _rounds_by_addition(f):
        record["encode_kind"] = BY_MINIFLOAT
        record["mantissa_bits"], record["min_exponent"] = f.mantissa_bits, 1 - f.bias
    if spec.scale_format == "e4m3fn":
        scale = Format.parse("e4m3fn")
        positive = scale.values[1:127]  # codes 1..126: a scale is never zero
        record["scale_thresholds"] = rank_thresholds(positive, np.arange(2, 127) % 2 == 0)
        record["scale_values"] = np.where(scale.is_number, scale.values, np.nan)
    return record


def rank_thresholds(values: np.ndarray, tie_up: np.ndarray) -> np.ndarray:
    """float32, (256,): the smallest t that rounds to rank r + 1 or higher under nearest-even; infinity beyond."""
    out = np.full(256, np.inf, dtype=np.float32)
    middle = (values[:-1] + (values[1:] - values[:-1]) / 2).astype(np.float64)
    least = middle.astype(np.float32)
    below = least.astype(np.float64) < middle
    exact = least.astype(np.float64) == middle
    least = np.where(below | (exact & ~tie_up), np.nextafter(least, np.float32(np.inf)), least)
    out[: len(least)] = least
    return out


def _significands(f: Format) -> tuple[list[int], list[int]]:
    """Each grid value as (odd significand, shift)."""
    grid = [int(g) for g in f.grid]
    shifts = [(abs(g) & -abs(g)).bit_length() - 1 if g else 0 for g in grid]
    return [g >> s if g >= 0 else -(-g >> s) for g, s in zip(grid, shifts, strict=True)], shifts


def _rounds_by_addition(f: Format) -> bool:
    """Whether 1.5 * 2**23 units of the last place stay a normal float32 for every exponent of f."""
    top = math.frexp(f.max)[1] - 1
    return top + 23 - f.mantissa_bits <= 127 and 1 - f.bias >= -126


def _as_tensor(record: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(record.tobytes(), dtype=np.uint8).copy())


@cache
def operand_record(spec: QuantSpec) -> torch.Tensor:
    """What quantize and dequantize need to know of a spec: one uint8 CPU tensor."""
    return _as_tensor(_operand(spec))


def plan_record(
    weight: QuantSpec, activation: QuantSpec | None, shape: tuple[int, int], tensor_scale: float = 1.0
) -> torch.Tensor:
    """What linear needs to know of a weight of this shape (N, K) and of its activations: one uint8 CPU tensor."""
    n, k = shape
    weight.groups(k)
    record = np.zeros((), PLAN)
    lengths = [spec.group_size or k for spec in (weight, activation) if spec is not None]
    if activation is not None:
        activation.groups(k)
    fold = math.gcd(*lengths) or 1
    fold_padded = 16 if fold <= 16 else -(-fold // 32) * 32
    folds = k // fold
    record["magic"], record["version"], record["bytes"] = MAGIC, VERSION, PLAN.itemsize
    record["n"], record["k"], record["fold"], record["fold_padded"], record["folds"] = n, k, fold, fold_padded, folds
    record["k_padded"] = -(-folds * fold_padded // 32) * 32
    record["weight"] = _operand(weight)
    record["weight"]["tensor_scale"] = tensor_scale
    if activation is None:
        record["carrier"] = CARRIERS["float"]
    else:
        plan = Plan(weight, activation)
        record["activation"] = _operand(activation)
        record["unit"] = plan.unit
        carrier = plan.carrier(fold)
        if carrier == "float64" and plan.int16_windows and record["weight"]["encode_kind"] == BY_MINIFLOAT:
            carrier = "int16_windows"
        record["carrier"] = CARRIERS[carrier]
        record["offset"], record["depth"], record["signed_depth"] = plan.offset, plan.int16_depth, plan.signed_depth
        record["largest_activation"] = min(plan.largest_activation, 2**31 - 1)  # int8 carrier: at most 128
    return _as_tensor(record)
