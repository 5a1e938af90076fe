"""Every EeMm against gfloat, an independent implementation: decoding, and all roundings but the stochastic one.

gfloat rounds m = 0 ties to the even code, as we do. Where it says nothing of its own, other tests take over: negative
values into unsigned formats, values below the smallest of e8m0fnu, and the code of a NaN (it writes all ones).
"""

import gfloat
import numpy as np
import pytest

from formats.float_oracle import CASES, MODES, OWN_BIAS, Case, probes
from minifloat import Format


def by_name(cases):
    return [pytest.param(c, id=c.name) for c in cases]


def check_decode(c: Case):
    f = Format.parse(c.name)
    codes = np.arange(1 << c.bits)
    expected = gfloat.decode_ndarray(c.gfloat, codes)
    np.testing.assert_array_equal(f.values, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(f.values[number]), np.signbit(expected[number]))
    np.testing.assert_array_equal(f.decode(codes.astype(np.uint8)), expected.astype(np.float32))
    assert f.max == expected[np.isfinite(expected)].max()
    assert f.min == expected[np.isfinite(expected)].min()
    assert f.smallest == expected[np.isfinite(expected) & (expected > 0)].min()


def check_encode(c: Case, x: np.ndarray):
    f, info = Format.parse(c.name), c.gfloat
    is_nan = np.isnan(f.values)
    for rounding, mode in MODES.items():
        for overflow in ("saturate",) if c.special == "none" else ("saturate", "special"):
            rounded = gfloat.round_ndarray(info, x, mode, sat=overflow == "saturate")
            expected = gfloat.encode_ndarray(info, rounded).astype(np.uint8)
            codes = f.encode(x, rounding, overflow)
            wrong = (codes != expected) & ~(is_nan[codes] & is_nan[expected])
            examples = [(x[i], f.values[codes[i]], f.values[expected[i]]) for i in np.flatnonzero(wrong)[:5]]
            assert not wrong.any(), f"{c.name} {rounding} {overflow}: (x, ours, gfloat) {examples}"


@pytest.mark.parametrize("c", by_name(CASES))
def test_agrees_with_gfloat(c):
    check_decode(c)
    check_encode(c, probes(c, random_count=100_000))


@pytest.mark.parametrize("c", by_name(OWN_BIAS))
def test_own_bias_agrees_with_gfloat(c):
    check_decode(c)
    check_encode(c, probes(c, random_count=1000))


def test_every_split_is_covered():
    splits = {(c.signed, c.exponent_bits, c.mantissa_bits) for c in CASES}
    assert len(splits) == sum(bits - 1 for bits in range(2, 9)) + sum(range(2, 9))
    assert {c.special for c in CASES} == {"none", "ieee", "fn", "fnuz", "fnu"}


def test_e1_ieee_has_subnormals_only():
    """gfloat's max of such formats is off by half a step (the encodings still agree), so ours is stated here."""
    assert Format.parse("e1m6ieee").max == 63 / 32
