"""Requantize against exact rational arithmetic and Format.encode."""

from fractions import Fraction

import numpy as np
import pytest

from minifloat.formats import Format
from minifloat.rtl.requantize import Requantize


@pytest.mark.parametrize(
    "name", ["int4", "uint8", "int8", "e2m1", "e3m0", "e4m3fn", "e5m2", "e4m3fnuz", "ue3m2", "e2m3"]
)
def test_equals_encode_where_float64_is_exact(name):
    f = Format.parse(name)
    r = Requantize(f, (3, 7), 9 - f.unit)
    rng = np.random.default_rng(0)
    sums = np.concatenate([np.arange(-300, 300), rng.integers(-(2**30), 2**30, 3000) >> rng.integers(0, 30, 3000)])
    sums = sums[: len(sums) // 2 * 2].reshape(-1, 2)
    want = f.encode(np.ldexp((sums * np.array([3, 7])).astype(np.float64), -r.shift))
    assert (r(sums) == want).all()


def test_ties_and_neighbours_of_every_midpoint():
    f = Format.parse("e4m3fn")
    r = Requantize(f, (1,), 12 - f.unit)
    values = np.unique(f.values[f.is_number])
    for low, high in zip(values, values[1:], strict=False):
        middle = (Fraction(low) + Fraction(high)) / 2 * 2**r.shift
        assert middle.denominator == 1
        codes = [r.round(int(middle) + d) for d in (-1, 0, 1)]
        assert f.values[codes[0]] == low and f.values[codes[2]] == high
        assert codes[1] in (codes[0], codes[2]) and codes[1] % 2 == 0


def test_from_scales_is_close():
    scales = np.array([0.001, 0.5, 3.0])
    r = Requantize.from_scales(Format.parse("int8"), scales)
    got = np.array(r.multipliers) / 2.0**r.shift
    assert (np.abs(got - scales) <= 2.0**-r.shift / 2).all()
    assert max(r.multipliers) < 1 << 16


def test_refusals():
    with pytest.raises(ValueError, match="use an integer or a float format"):
        Requantize(Format.parse("nf4"), (1,), 4)
    with pytest.raises(ValueError, match="finite scales above 0"):
        Requantize.from_scales(Format.parse("int8"), np.array([1.0, 0.0]))
