"""Plans: the table of design section 5, accumulator widths and carriers against brute-force extremes."""

import itertools
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from minifloat import Format, QuantSpec
from minifloat.emulator import quantize
from minifloat.plan import CARRIERS, Plan, integer_range

INT8_DIGIT = [
    "e1m1",
    "e1m6",
    "e2m0",
    "e2m1",
    "e2m2",
    "e2m3",
    "e2m4",
    "e3m0",
    *(f"int{n}" for n in range(1, 9)),
    "binary",
]
INT16_DIGIT = {"e3m1": 192, "e3m2": 448, "e3m3": 960, "e2m5": 252, "e3m4": 1984}
FLOAT64_DIGIT = {"e4m0": 1 << 14, "e4m1": 3 << 14, "e4m2": 7 << 14, "e4m3fn": 448 << 9}
PAIRS = [
    "e2m1",
    "e3m0",
    "e2m3",
    "e3m2",
    "e4m3fn",
    "e5m2",
    "e3m4",
    "e7m0",
    "ue4m4",
    "int4",
    "int8",
    "uint8",
    "ternary",
    "nf4",
]


def plan(weight: str, activation: str) -> Plan:
    return Plan(QuantSpec.parse(f"{weight}-row"), QuantSpec.parse(f"{activation}-row"))


@cache
def grid_of(name: str) -> list[int]:
    """Every number of the format over its smallest step, found from the values alone."""
    values = [Fraction(v) for v in Format.parse(name).values if np.isfinite(v)]
    unit = Fraction(2) ** Format.parse(name).unit
    grid = [v / unit for v in values]
    assert all(g.denominator == 1 for g in grid)
    assert any(g % 2 for g in grid)  # unit is the largest that serves
    return [int(g) for g in grid]


@pytest.mark.parametrize("name", INT8_DIGIT)
def test_formats_of_one_int8_digit(name):
    grid = grid_of(name)
    assert min(grid) >= -128 and max(grid) <= 127 and max(map(abs, grid)) == Format.parse(name).grid_max
    assert plan(name, "int8").carrier(4096) == plan("int4", name).carrier(4096) == "int8"


@pytest.mark.parametrize(("name", "grid_max"), {"e2m1": 12, "e2m3": 60, "e2m4": 124, "e3m0": 64, **INT16_DIGIT}.items())
def test_grid_maxima(name, grid_max):
    assert max(map(abs, grid_of(name))) == grid_max == Format.parse(name).grid_max
    if name in INT16_DIGIT:
        assert plan(name, "int8").carrier(4096) == plan("int8", name).carrier(4096) == "int16"


@pytest.mark.parametrize(("name", "grid_max"), FLOAT64_DIGIT.items())
def test_e4_formats(name, grid_max):
    assert Format.parse(name).grid_max == max(map(abs, grid_of(name))) == grid_max
    assert plan(name, "int8").carrier(64) == ("float64" if grid_max > 32767 else "int16")


def test_other_carriers():
    assert plan("uint8", "int8").carrier(4096) == "int8"  # weights may span 256 integers: they get an offset
    assert plan("int8", "uint8").carrier(4096) == "int16"
    assert plan("e4m3fn", "e4m3fn").carrier(4096) == "float64"
    assert plan("e5m2", "e5m2").carrier(1) == "wide"
    assert plan("e7m0", "int8").carrier(1) == "wide"
    int4_with_zero_point = Plan(QuantSpec.parse("int4-g32-zp"), QuantSpec.parse("int8-row"))
    assert int4_with_zero_point.carrier(32) == "int8"
    # A zero point of the weights is taken off the sum, not off the digits; one of the activations widens the digits.
    assert Plan(QuantSpec.parse("int8-g32-zp"), QuantSpec.parse("int8-row")).carrier(32) == "int8"
    assert Plan(QuantSpec.parse("int8-row"), QuantSpec.parse("int8-row-zp")).carrier(32) == "int16"


def test_carriers_end_where_the_sum_would_not_fit():
    int8 = plan("int8", "int8")
    assert (int8.carrier(32767), int8.carrier(32768)) == ("int8", "int16")  # 256 * 128 * 2**15 = 2**30
    int16 = plan("e3m4", "int8")
    last = (2**31 - 1) // (1984 * 128)
    assert (int16.carrier(last), int16.carrier(last + 1)) == ("int16", "float64")
    mixed = plan("e5m2", "e4m3fn")
    last = (2**53 - 1) // (max(grid_of("e5m2")) * max(grid_of("e4m3fn")))
    assert (mixed.carrier(last), mixed.carrier(last + 1)) == ("float64", "wide")


@pytest.mark.parametrize(("weight", "activation"), list(itertools.product(PAIRS, PAIRS)))
def test_accumulator_bits_against_extremes(weight, activation):
    """The least two's complement width that holds the largest and the smallest sum of K products, either sign."""
    p = plan(weight, activation)
    weights, activations = ({abs(g) for g in grid_of(name)} for name in (weight, activation))
    largest = max(w * a for w in weights for a in activations)
    assert p.max_product == largest
    values = [Format.parse(name).values for name in (weight, activation)]
    top = max(abs(Fraction(v)) for v in values[0][np.isfinite(values[0])])
    top *= max(abs(Fraction(v)) for v in values[1][np.isfinite(values[1])])
    assert largest * Fraction(2) ** p.unit == top
    for k in (0, 1, 2, 3, 37, 1024, 4096):
        bits = p.accumulator_bits(k)
        assert k * largest <= 2 ** (bits - 1) - 1
        assert bits == 1 or k * largest > 2 ** (bits - 2) - 1


def test_accumulator_examples():
    assert plan("e2m1", "e2m1").accumulator_bits(32) == 14  # 32 * 144 = 4608 < 2**13
    assert plan("int8", "int8").accumulator_bits(4096) == 28
    assert plan("e5m2", "e5m2").accumulator_bits(1024) == 75
    assert plan("e5m2finite", "e5m2finite").accumulator_bits(1024) == 77


@pytest.mark.parametrize("name", [f"{sign}int{n}" for sign in ("", "u") for n in range(1, 9)])
def test_zero_point_doubles_the_range(name):
    grid = grid_of(name)
    differences = [g - zero for g in grid for zero in grid]
    assert integer_range(QuantSpec.parse(f"{name}-row-zp")) == (min(differences), max(differences))
    assert integer_range(QuantSpec.parse(f"{name}-row")) == (min(grid), max(grid))


@pytest.mark.parametrize("weight", ["e2m1", "e2m5", "uint8", "int8", "e4m3fn", "e5m2", "e7m0", "nf4", "int4-zp"])
def test_a_carrier_holds_its_digits(weight):
    """And no narrower one would; the int8 carrier keeps half of int32 free, and its weights carry an offset."""
    name, _, zp = weight.partition("-")
    span = max(grid_of(name)) - min(grid_of(name))
    for activation in ("int8", "uint8", "e3m4", "e4m3fn", "e5m2"):
        for length in (1, 37, 4096, 1 << 15, 1 << 17):
            p = Plan(QuantSpec.parse(f"{name}-row{'-zp' * bool(zp)}"), QuantSpec.parse(f"{activation}-row"))
            (w_low, w_high), (a_low, a_high) = p.weight_range, p.activation_range
            bits = p.accumulator_bits(length)
            fits = {
                "int8": span <= 255 and a_low >= -128 and a_high <= 127 and length * 256 * 128 < 2**30,
                "int16": max(-w_low, w_high, -a_low, a_high) <= 32767 and bits <= 32,
                "float64": bits <= 54,
                "wide": True,
            }
            chosen = p.carrier(length)
            assert fits[chosen] and not any(fits[c] for c in CARRIERS[: CARRIERS.index(chosen)])


@pytest.mark.parametrize("name", ["int4", "uint4", "e2m1", "int8", "binary", "e2m4", "ue3m1", "e3m0", "uint8"])
def test_offset_makes_unsigned_digits(name):
    p, grid = plan(name, "int8"), grid_of(name)
    digits = [g - p.offset for g in grid]
    assert min(digits) == 0 and max(digits) <= 255
    assert plan("e3m4", "int8").offset == 0  # spans more than 255


@pytest.mark.parametrize("weight", ["binary", "int2", "int4", "e2m1", "uint4", "int8", "e2m3"])
@pytest.mark.parametrize(
    "activation", ["int8-row", "int8-row-mse", "int8-row-zp", "int8-row-bf16", "int4-g8", "e2m1-g8"]
)
def test_int16_depth_never_overflows(weight, activation):
    """That many pairs of products fit int16, for the integers that quantizing makes of hard data; one more may not."""
    p = Plan(QuantSpec.parse(f"{weight}-row"), QuantSpec.parse(activation))
    f, rng = p.activation.format, np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((200, 64)), np.full((64, 64), np.arange(64)[:, None] / 127.0 + 0.25)])
    x[:, 0] = -np.abs(x).max(axis=1) - 0.01
    q = quantize(x.astype(np.float32), p.activation)
    made = f.grid[q.codes] if q.zero_points is None else f.grid[q.codes] - np.repeat(q.zero_points, 64, axis=1)
    digit = max(grid_of(weight)) - min(grid_of(weight))
    largest = int(np.abs(made).max())
    assert p.int16_depth * 2 * digit * largest <= 32767
    if activation in ("int8-row", "int8-row-mse"):
        assert (p.int16_depth + 1) * 2 * digit * largest > 32767
    if p.signed_depth:
        assert made.min() >= -127  # -128 has no negative in 8 bits
        assert p.signed_depth * 2 * max(map(abs, grid_of(weight))) * largest <= 32767
    if (weight, activation) in [("int8", "int8-row"), ("e2m3", "int8-row")]:
        assert p.signed_depth == {"int8": 1, "e2m3": 2}[weight]
