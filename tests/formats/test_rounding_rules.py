"""The rounding rules of docs/formats.md on exact fractions: stochastic too, and whatever gfloat does not define."""

import numpy as np
import pytest

from formats.float_oracle import CASES, MODES, probes, round_exactly
from minifloat import Format

OVERFLOWS = ("saturate", "special")


def some_probes(c):
    """Some probes, and values that only float64 has: their distance to the next code is inexact if taken badly."""
    x = probes(c, random_count=40)
    rng = np.random.default_rng(1)
    x = rng.choice(x[np.isfinite(x)], min(len(x), 100), replace=False)
    step = float(c.magnitude(1) - c.magnitude(0))
    tiny = [step / 4 - step * 2.0**-55, step * (1 - 2.0**-52), step * 2.0**-70, 5e-324 if c.special != "fnu" else step]
    tiny = float(c.magnitude(0) if c.special == "fnu" else 0) + np.array(tiny)
    return np.concatenate([x, tiny, -tiny if c.signed else tiny])


@pytest.mark.parametrize("c", [pytest.param(c, id=c.name) for c in CASES])
def test_deterministic_roundings(c):
    f, x = Format.parse(c.name), some_probes(c)
    for rounding in MODES:
        for overflow in OVERFLOWS[: 1 + (c.special != "none")]:
            expected = [round_exactly(c, v, rounding, overflow) for v in x]
            np.testing.assert_array_equal(f.encode(x, rounding, overflow), expected, err_msg=f"{rounding} {overflow}")


@pytest.mark.parametrize("c", [pytest.param(c, id=c.name) for c in CASES])
def test_stochastic(c):
    """Random bits at random, at both ends, and exactly where the decision turns for the probes."""
    f, x = Format.parse(c.name), some_probes(c)
    edges = np.array([0, 1, 2**30, 2**31, 3 * 2**30, 2**32 - 1], dtype=np.uint32)
    bits = np.concatenate([np.random.default_rng(2).integers(0, 2**32, len(x), np.uint32), np.repeat(edges, len(x))])
    x = np.tile(x, 1 + len(edges))
    for overflow in OVERFLOWS[: 1 + (c.special != "none")]:
        expected = [round_exactly(c, v, "stochastic", overflow, int(r)) for v, r in zip(x, bits, strict=True)]
        np.testing.assert_array_equal(f.encode(x, "stochastic", overflow, random_bits=bits), expected)


def test_stochastic_is_unbiased():
    f, count = Format.parse("e2m1"), 1 << 16
    bits = (np.arange(count) << 16).astype(np.uint32)  # every 16-bit fraction once: the mean is then exact
    for x in (0.1, -0.1, 2.25, -3.5, 5.999, -0.0001):
        x = np.round(x * 2**16) / 2**16
        assert f.decode(f.encode(np.full(count, x), "stochastic", random_bits=bits)).astype(float).mean() == x


@pytest.mark.parametrize("name", ["e2m1", "e4m3fn", "e5m2", "int4", "e3m0"])
def test_stochastic_carries(name):
    """The carry moves on to the next exponent, and past the largest value neither wraps nor reaches the sign bit."""
    f = Format.parse(name)
    never, always = np.uint32(2**32 - 1), np.uint32(0)
    values = np.unique(f.values[f.is_number])
    above = np.nextafter(values[:-1], np.inf)
    codes = f.encode(above, "stochastic", random_bits=np.full(len(above), always))
    np.testing.assert_array_equal(f.decode(codes), values[1:])
    codes = f.encode(above, "stochastic", random_bits=np.full(len(above), never))
    np.testing.assert_array_equal(f.decode(codes), values[:-1])
    exact = f.encode(values, "stochastic", random_bits=np.full(len(values), always))
    np.testing.assert_array_equal(f.decode(exact), values)
    over = np.array([np.nextafter(f.max, np.inf), 1.5 * f.max, 1e30, np.inf])
    codes = f.encode(over, "stochastic", random_bits=np.full(4, always))
    np.testing.assert_array_equal(f.decode(codes), np.full(4, f.max))


@pytest.mark.parametrize("name", ["e3m0", "e2m0", "e7m0", "ue4m0", "e8m0fnu", "e4m0b3"])
def test_ties_without_mantissa_go_to_the_even_code(name):
    """0.75 lies between 0.5 and 1: their codes decide, since no mantissa bit can."""
    f = Format.parse(name)
    positive = np.flatnonzero(f.is_number & (f.values >= 0) & ~np.signbit(f.values))
    middle = (f.values[positive[1:]] + f.values[positive[:-1]]) / 2
    even = positive[1:] - positive[1:] % 2
    np.testing.assert_array_equal(f.encode(middle), even)


def test_negative_into_unsigned():
    """Zero while saturating; with special overflow NaN, unless the value rounds to zero anyway."""
    f = Format.parse("ue4m4fn")
    x = -f.smallest * np.array([0.25, 0.5, 0.75, 1, 1000, np.inf])
    for rounding in MODES:
        assert not f.encode(x, rounding).any()
    zero, nan = 0, f.nan_code
    expected = {
        "nearest_even": [zero, zero, nan, nan, nan, nan],
        "nearest_away": [zero, nan, nan, nan, nan, nan],
        "toward_zero": [zero, zero, zero, nan, nan, nan],
        "up": [zero, zero, zero, nan, nan, nan],
        "down": [nan, nan, nan, nan, nan, nan],
    }
    for rounding, codes in expected.items():
        np.testing.assert_array_equal(f.encode(x, rounding, "special"), codes, err_msg=rounding)
    assert not Format.parse("uint4").encode(np.array([-0.4, -0.6, -100])).any()


def test_below_the_smallest_of_e8m0fnu():
    """There is no zero: what would round to it (or lies below) is the smallest value, or NaN with special overflow."""
    f = Format.parse("e8m0fnu")
    x = f.smallest * np.array([1, 0.75, 0.51, 0.5, 0.25, 0, -0.0, -1])
    np.testing.assert_array_equal(f.encode(x), np.zeros(8))
    np.testing.assert_array_equal(f.encode(x, overflow="special"), [0, 0, 0, 0, 255, 255, 255, 255])
    np.testing.assert_array_equal(f.encode(x, "down", "special"), [0, 255, 255, 255, 255, 255, 255, 255])


@pytest.mark.parametrize("name", ["e2m1", "e2m3", "e3m2", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e3m4"])
def test_float64_is_rounded_once(name):
    """A float64 just above a midpoint rounds up; through float32 it would become the tie and could round down."""
    f = Format.parse(name)
    values = np.unique(f.values[f.is_number])
    middle = (values[1:] + values[:-1]) / 2
    above, below = np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)
    np.testing.assert_array_equal(f.decode(f.encode(above)), values[1:])
    np.testing.assert_array_equal(f.decode(f.encode(below)), values[:-1])
    through_float32 = f.decode(f.encode(above.astype(np.float32)))
    assert (through_float32 != values[1:]).any()  # else these inputs could not tell


def test_mxfp4_ties():
    x = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.5, 7.0])
    nearest = np.array([0, 1, 1, 2, 2, 4, 4, 6, 6])
    f = Format.parse("e2m1")
    np.testing.assert_array_equal(f.decode(f.encode(x)), nearest)
    np.testing.assert_array_equal(f.decode(f.encode(-x)), -nearest)
    away = np.array([0.5, 1, 1.5, 2, 3, 4, 6, 6, 6])
    np.testing.assert_array_equal(f.decode(f.encode(-x, "nearest_away")), -away)


@pytest.mark.parametrize(
    ("name", "largest", "tie", "at_tie", "beyond"),
    [
        ("e4m3fn", 448, 464, 448, np.nan),  # 448 has an even code, so the tie stays
        ("e5m2", 57344, 61440, np.inf, np.inf),
        ("e4m3fnuz", 240, 248, np.nan, np.nan),
        ("e5m2fnuz", 57344, 61440, np.nan, np.nan),
        ("e4m3ieee", 240, 248, np.inf, np.inf),
    ],
)
def test_overflow_boundary(name, largest, tie, at_tie, beyond):
    f = Format.parse(name)
    x = np.array([largest, np.nextafter(tie, 0), tie, np.nextafter(tie, np.inf), 1e9, np.inf], dtype=np.float64)
    for sign in (1, -1):
        np.testing.assert_array_equal(f.decode(f.encode(sign * x)), np.full(6, sign * largest))
        special = sign * np.array([largest, largest, at_tie, beyond, beyond, beyond])
        np.testing.assert_array_equal(f.decode(f.encode(sign * x, overflow="special")), special)


@pytest.mark.parametrize("name", ["e4m3fn", "e5m2", "ue4m4ieee"])
def test_roundings_that_point_inwards_never_overflow(name):
    f = Format.parse(name)
    for rounding in ("toward_zero", "down"):
        np.testing.assert_array_equal(f.decode(f.encode([f.max * 1.5, 1e300], rounding, "special")), [f.max] * 2)
        assert not f.is_number[f.encode(np.inf, rounding, "special")]
    if f.signed:
        np.testing.assert_array_equal(f.decode(f.encode([f.min * 1.5, -1e300], "up", "special")), [f.min] * 2)


def test_minus_zero():
    """Kept where the format has it, also by what underflows to it; +0 where it does not."""
    x = np.array([0.0, -0.0, -1e-9, 1e-9])
    np.testing.assert_array_equal(Format.parse("e2m1").encode(x), [0, 8, 8, 0])
    np.testing.assert_array_equal(Format.parse("e4m3fn").encode(x), [0, 128, 128, 0])
    for name in ("e4m3fnuz", "int4", "ue2m2", "nf4", "ternary", "dynamic8"):
        f = Format.parse(name)
        assert f.negative_zero_code is None
        decoded = f.decode(f.encode(x))
        assert not decoded.any() and not np.signbit(decoded).any()
