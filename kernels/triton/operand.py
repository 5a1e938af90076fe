"""A plan record as the kernels take it: named constants and one table of floats. Needs no Triton.

How a code becomes a value is found from the table of values, never from a format's name: each of the three ways below
is tried on every code, and the first that reproduces the table is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Where the parts of an operand's float32 table start.
THRESHOLDS, VALUES, SCALE_THRESHOLDS, SCALE_VALUES, CODES, GRID, TENSOR_SCALE = range(0, 256 * 7, 256)
TABLE_SIZE = TENSOR_SCALE + 1

SCALE_KINDS = ("float32", "bfloat16", "power_of_two", "two_level")
SCALE_BYTES = {"float32": 4, "bfloat16": 2, "power_of_two": 1, "two_level": 1}
ENCODE_KINDS = ("table", "integer", "minifloat")


class Decode(NamedTuple):
    """How a weight's codes become values.

    kind: "affine": (code ^ flip) * step + low. "minifloat": sign, then exponent and mantissa bits shifted to where
        float32 has them, times `multiplier`. "table": a load.
    group: elements of a row that share a scale, 0 for the whole row.
    scale_mantissa_bits, scale_multiplier: a "two_level" scale's code, like the "minifloat" kind.
    magic: 1.5 * 2**(23 + unit): added to a value it leaves the value's grid integer in the low bits of the sum.
    """

    bits: int
    kind: str
    flip: int
    low: float
    step: float
    is_signed: bool
    mantissa_bits: int
    multiplier: float
    magic: float
    table: int
    group: int
    scale_kind: str
    has_zero_point: bool
    scale_mantissa_bits: int
    scale_multiplier: float

    @property
    def aligned(self) -> bool:
        """Whether a chunk of 32 k's lies in one group."""
        return self.group % 32 == 0

    @property
    def runs(self) -> int:
        """How many groups a chunk can touch."""
        return touched(self.group)

    @property
    def chunks_per_scale(self) -> int:
        """Chunks between two uses of a scale; a group longer than a block of 8 has its scale applied once a block."""
        if self.group % 256 == 0:
            return 8
        return self.group // 32 if 256 % self.group == 0 and self.aligned else 1


class Fold(NamedTuple):
    """How a weight and an activation multiply exactly; a fold is a run of K that shares both scales.

    length: of a fold, 0 if the row is one.
    weight_digits, a_digits: int8 digits of a grid integer: 1 or 2.
    centre: what is subtracted from the weights' grid integers so that they fit their digits.
    sums: whether the sums of a's folds are needed, for the centre or for zero points.
    a_group: group size of the activations' scales, 0 for one per row. a_two_level: they have a second level.
    product: what a product of two grid integers is worth.
    """

    length: int
    weight_digits: int
    a_digits: int
    centre: int
    sums: bool
    a_group: int
    a_two_level: bool
    product: float

    @property
    def aligned(self) -> bool:
        """Whether a chunk of 32 k's lies in one fold."""
        return self.length % 32 == 0

    @property
    def even(self) -> bool:
        """Whether folds end at the same chunks of every block of 256."""
        return self.aligned and self.length > 0 and 256 % self.length == 0

    @property
    def products(self) -> int:
        """How many products of digits one product of two grid integers takes."""
        return self.weight_digits * self.a_digits

    @property
    def runs(self) -> int:
        """How many folds a chunk can touch."""
        return touched(self.length)


def touched(length: int) -> int:
    """How many runs of `length` can overlap 32 consecutive k's that start at a multiple of 32."""
    if length % 32 == 0:
        return 1
    return 32 // length if 32 % length == 0 else (30 + length) // length + 1


class Encode(NamedTuple):
    """How activations find their scales and codes; mostly the fields of kernels/cpu/plan.h.

    tensor_max: the magnitude that the largest of a tensor is mapped to by its second level. to_grid: 2**-unit.
    """

    bits: int
    kind: str
    granularity: str
    scale_kind: str
    has_zero_point: bool
    is_signed: bool
    scale_exponent: int
    mantissa_bits: int
    min_exponent: int
    negative_zero_code: int
    nan_code: int
    scale_max: float
    lowest: float
    highest: float
    tensor_max: float
    to_grid: float


def table_of(operand: np.void) -> np.ndarray:
    """float32, (TABLE_SIZE,): everything that the kernels look up for this operand."""
    out = np.zeros(TABLE_SIZE, np.float32)
    for start, name in (
        *((THRESHOLDS, "thresholds"), (VALUES, "values"), (SCALE_THRESHOLDS, "scale_thresholds")),
        *((SCALE_VALUES, "scale_values"), (CODES, "codes"), (GRID, "grid")),
    ):
        out[start : start + 256] = operand[name]
    out[TENSOR_SCALE] = operand["tensor_scale"]
    return out


def decode_of(operand: np.void, exact: bool = False) -> Decode:
    """The cheapest way to decode this operand; `exact`: its grid integers must come out of `magic` too."""
    common = {
        "bits": int(operand["bits"]),
        "group": int(operand["group_size"]),
        "scale_kind": SCALE_KINDS[operand["scale_kind"]],
        "has_zero_point": bool(operand["has_zero_point"]),
        "is_signed": bool(operand["is_signed"]),
    }
    blank = dict(flip=0, low=0.0, step=1.0, mantissa_bits=0, multiplier=1.0, table=VALUES)
    blank |= dict(scale_mantissa_bits=0, scale_multiplier=1.0)
    if common["scale_kind"] == "two_level":
        scale = next(_minifloats(operand["scale_values"], 8, True))
        common |= {"scale_mantissa_bits": scale["mantissa_bits"], "scale_multiplier": scale["multiplier"]}
    ways = (_affine(operand), *_minifloats(operand["values"], common["bits"], common["is_signed"]))
    unit = int(operand["unit"])
    fits = not exact or -126 <= 23 + unit <= 126
    for found in ways if fits else ():
        if found is not None:
            return Decode(**{**blank, **common, **found}, magic=_magic(unit))
    if exact:  # the table of grid integers instead of values: their unit is 1
        return Decode(**{**blank, **common, "kind": "table", "table": GRID}, magic=_magic(0))
    return Decode(**{**blank, **common, "kind": "table"}, magic=_magic(0))


def encode_of(operand: np.void) -> Encode:
    integers = ("bits", "scale_exponent", "mantissa_bits", "min_exponent", "negative_zero_code", "nan_code")
    floats = ("scale_max", "lowest", "highest")
    return Encode(
        kind=ENCODE_KINDS[operand["encode_kind"]],
        granularity=("tensor", "row", "group")[operand["granularity"]],
        scale_kind=SCALE_KINDS[operand["scale_kind"]],
        has_zero_point=bool(operand["has_zero_point"]),
        is_signed=bool(operand["is_signed"]),
        tensor_max=float(np.nanmax(operand["scale_values"]) * operand["scale_max"]),
        to_grid=2.0 ** -max(int(operand["unit"]), -126),
        **{name: int(operand[name]) for name in integers},
        **{name: float(operand[name]) for name in floats},
    )


def parts_of(operand: np.void, dtype: str) -> tuple[int, int]:
    """(parts, shift): value * 2**shift is the exact sum of `parts` numbers of `dtype`, for every code.

    parts is 0 where three are not enough: then x is multiplied as float32.
    """
    if dtype == "float32":
        return 1, 0
    values = _finite(operand)
    if operand["has_zero_point"]:
        values = np.subtract.outer(values, values).ravel()
    top = np.abs(values).max()
    for shift in (0,) if dtype == "bfloat16" else (0, 14 - int(np.frexp(top)[1])):
        rest = np.ldexp(values.astype(np.float32), shift)
        for parts in (1, 2, 3):
            with np.errstate(invalid="ignore"):  # a value beyond the type is infinity minus itself: not exact
                rest = rest - _rounded(rest, dtype)
            if not rest.any():
                return parts, shift
    return 0, 0


def _finite(operand: np.void) -> np.ndarray:
    values = operand["values"][: 1 << int(operand["bits"])]
    return values[np.isfinite(values)]


def _rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        if dtype == "float16":
            return x.astype(np.float16).astype(np.float32)
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _magic(unit: int) -> float:
    return 1.5 * 2.0 ** max(min(23 + unit, 126), -126)


def _same(values: np.ndarray, want: np.ndarray) -> bool:
    """Whether these float32 bits are the wanted ones, for every code that is a number."""
    want = want[: len(values)]
    number = np.isfinite(want)
    return bool((values.astype(np.float32).view(np.uint32) == want.view(np.uint32))[number].all())


def _affine(operand: np.void) -> dict | None:
    count = 1 << int(operand["bits"])
    codes = np.arange(count)
    for flip in (0, count >> 1):
        low, next_up = operand["values"][flip], operand["values"][flip ^ 1]
        step = next_up - low
        if np.isfinite(step) and abs(low) < 2**15 and _same((codes ^ flip) * step + low, operand["values"]):
            return {"kind": "affine", "flip": flip, "low": float(low), "step": float(step)}
    return None


def _minifloats(want: np.ndarray, bits: int, is_signed: bool):
    """Every mantissa width for which the shifted code times a power of two is the wanted float32 of that code."""
    codes = np.arange(1 << bits, dtype=np.uint32)
    low_mask = np.uint32((1 << (bits - is_signed)) - 1)
    sign = (codes >> np.uint32(bits - 1)) << np.uint32(31) if is_signed else np.zeros_like(codes)
    for mantissa_bits in range(bits - is_signed):
        pattern = (codes & low_mask) << np.uint32(23 - mantissa_bits)
        at = int(low_mask) >> 1  # a value well inside the range
        raw = pattern.view(np.float32)
        if not np.isfinite(want[at]) or raw[at] == 0:
            continue
        with np.errstate(all="ignore"):
            multiplier = float(want[at]) / float(raw[at])
            values = (pattern | sign).view(np.float32) * np.float32(multiplier)
        if 2.0**-126 <= multiplier <= 2.0**127 and _same(values, want):
            yield {"kind": "minifloat", "mantissa_bits": mantissa_bits, "multiplier": multiplier}
