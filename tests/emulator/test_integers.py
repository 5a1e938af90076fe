"""The integer route of the emulator: sums of any width, and their one rounding to float32."""

from fractions import Fraction

import numpy as np
import pytest

from emulator.exact_oracle import float32_of
from minifloat.emulator.integers import exact_dot, to_float32


@pytest.mark.parametrize("bits", [(7, 7), (20, 33), (25, 26), (26, 27), (30, 31), (32, 63), (62, 62), (100, 127)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (2, 3, 4097), (0, 2, 3), (2, 2, 0)])
def test_exact_dot(bits, shape):
    """Sums just below and far above 2**53, over more than one chunk of K; the low bits are where float64 would fail."""
    m, n, k = shape
    rng = np.random.default_rng(sum(bits))
    a, w = (
        [
            [(int(rng.integers(2**62)) << 70 | int(rng.integers(2**62))) % 2 ** (b + 1) - 2**b for _ in range(k)]
            for _ in range(r)
        ]
        for r, b in ((m, bits[0]), (n, bits[1]))
    )
    kind = [np.int64 if b < 63 else object for b in bits]
    result = exact_dot(np.array(a, kind[0]).reshape(m, k), np.array(w, kind[1]).reshape(n, k))
    assert result.shape == (m, n)
    expected = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in w] for row in a]
    assert [[int(v) for v in row] for row in result] == expected


@pytest.mark.parametrize("unit", [-298, -190, -178, -160, -24, 0, 40, 100, 120])
@pytest.mark.parametrize("kind", [np.float64, object])
def test_to_float32(unit, kind):
    """Ties of float32 and their neighbours, subnormal results, overflow; wider than float64 only as Python integers."""
    rng = np.random.default_rng(unit + 298)
    near = [(int(rng.integers(2**24)) << shift) + extra for shift in range(1, 29) for extra in (-1, 0, 1)]
    near += [half + extra for half in (3 << 23, 5 << 23, (1 << 25) + 1) for extra in (-1, 0, 1)]
    near += [((4 * i + 1) << 28) + extra for i in (3, 999, 1 << 20) for extra in (-1, 0, 1)]  # at unit -178 too
    if kind is object:
        near += [(v << 60) + extra for v in near for extra in (-1, 0, 1)]
        near += [1 << 500, (1 << 224) + (1 << 200) + 1]
    sums = near + [-v for v in near] + [0]
    with np.errstate(over="ignore"):
        result = to_float32(np.array(sums, kind).reshape(1, -1), unit)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[0], [float32_of(Fraction(v) * Fraction(2) ** unit) for v in sums])
