"""Plans: the table of design section 5, accumulator widths and carriers against brute-force extremes."""

import itertools
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from minifloat import Format, QuantSpec
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
    assert plan(name, "int8").carrier(4096) == ("float64" if grid_max > 32767 else "int16")


def test_other_carriers():
    assert plan("uint8", "int8").carrier(4096) == "int8"  # weights may span 256 integers: they get an offset
    assert plan("int8", "uint8").carrier(4096) == "int16"
    assert plan("e4m3fn", "e4m3fn").carrier(4096) == "float64"
    assert plan("e5m2", "e5m2").carrier(1) == "wide"
    assert plan("e7m0", "int8").carrier(1) == "wide"
    int4_with_zero_point = Plan(QuantSpec.parse("int4-g32-zp"), QuantSpec.parse("int8-row"))
    assert int4_with_zero_point.carrier(32) == "int8"
    assert Plan(QuantSpec.parse("int8-g32-zp"), QuantSpec.parse("int8-row")).carrier(32) == "int16"


def test_carriers_end_where_the_sum_would_not_fit():
    int8 = plan("int8", "int8")
    assert (int8.carrier(65535), int8.carrier(65536)) == ("int8", "int16")  # 256 * 128 * 2**16 = 2**31
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


@pytest.mark.parametrize("weight", ["e2m1", "e2m5", "uint8", "e4m3fn", "e5m2", "e7m0", "nf4", "int4-zp"])
def test_a_carrier_holds_its_digits(weight):
    for activation in ("int8", "uint8", "e3m4", "e4m3fn", "e5m2"):
        for length in (1, 37, 4096, 1 << 17):
            name, zp = weight.removesuffix("-zp"), weight[len(weight.removesuffix("-zp")) :]
            p = Plan(QuantSpec.parse(f"{name}-row{zp}"), QuantSpec.parse(f"{activation}-row"))
            (w_low, w_high), (a_low, a_high) = p.weight_range, p.activation_range
            fits = {
                "int8": w_high - w_low <= 255 and a_low >= -128 and a_high <= 127 and p.accumulator_bits(length) <= 32,
                "int16": max(-w_low, w_high, -a_low, a_high) <= 32767 and p.accumulator_bits(length) <= 54,
                "float64": p.accumulator_bits(length) <= 54,
                "wide": True,
            }
            chosen = p.carrier(length)
            assert chosen in CARRIERS and fits[chosen]
            if chosen != "int16" or length < 1 << 16:  # from 2**16 on int8 is given up, even if the values are small
                assert not any(fits[c] for c in CARRIERS[: CARRIERS.index(chosen)])
