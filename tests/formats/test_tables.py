"""Integers, binary, ternary and codebooks against a brute-force search for the nearest value on exact fractions."""

from bisect import bisect_right
from fractions import Fraction

import numpy as np
import pytest
import torch

from minifloat import Format
from minifloat.formats import ROUNDINGS

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 9)]
CODEBOOKS = ["binary", "ternary", "nf4", "dynamic8", "flint4", "uflint4"]


def sorted_table(values) -> list[tuple[Fraction, int]]:
    """(value, code) in ascending order; of equal values the lowest code counts."""
    return sorted({Fraction(v): code for code, v in reversed(list(enumerate(values.tolist())))}.items())


def round_by_search(table: list[tuple[Fraction, int]], x: float, rounding: str, random: int) -> int:
    """Compare x with the values on each side of it; a tie goes to the even code, and to the lower if both are alike."""
    size = table[0][0] if x <= table[0][0] else min(Fraction(min(x, 1e300)), table[-1][0])  # infinities saturate too
    at = bisect_right(table, size, key=lambda item: item[0])
    low, low_code = table[at - 1]
    if low == size:
        return low_code
    high, high_code = table[at]
    if rounding in ("up", "down", "toward_zero"):
        return high_code if rounding == "up" or (rounding == "toward_zero" and size < 0) else low_code
    if rounding == "stochastic":
        return high_code if Fraction(random, 2**32) < (size - low) / (high - low) else low_code
    if size - low != high - size:
        return high_code if high - size < size - low else low_code
    if rounding == "nearest_away":
        return high_code if high >= -low else low_code
    return min(low_code, high_code, key=lambda code: (code % 2, code))


def probes(values: np.ndarray) -> np.ndarray:
    v = np.unique(values)
    base = np.concatenate([v, (v[1:] + v[:-1]) / 2, [v[0] - 0.3, v[-1] + 0.3, 1e30, -1e30]])
    single = base.astype(np.float32)
    near = [np.nextafter(x, x.dtype.type(end)) for x in (base, single) for end in (-np.inf, np.inf)]
    rng = np.random.default_rng(4)
    random = rng.uniform(1.3 * v[0] - 0.1, 1.3 * v[-1], 500)
    log = v[-1] * np.exp2(rng.uniform(-30, 0, 200)) * rng.choice([-1, 1], 200)
    return np.concatenate([base, *near, random, log, [0.0, np.inf, -np.inf]])


@pytest.mark.parametrize("name", INTEGERS + CODEBOOKS)
def test_encode_finds_the_nearest(name):
    f = Format.parse(name)
    x = probes(f.values)
    random = np.random.default_rng(5).integers(0, 2**32, len(x), dtype=np.uint32)
    table = sorted_table(f.values)
    for rounding in ROUNDINGS:
        expected = [round_by_search(table, v, rounding, int(r)) for v, r in zip(x, random, strict=True)]
        np.testing.assert_array_equal(f.encode(x, rounding, random_bits=random), expected, err_msg=rounding)


@pytest.mark.parametrize("name", INTEGERS + CODEBOOKS)
def test_codes_survive(name):
    """Decoding then encoding returns every code, but for a second zero."""
    f = Format.parse(name)
    codes = np.arange(1 << f.bits, dtype=np.uint8)
    second_zero = {"ternary": 2, "flint4": 8}.get(name)
    np.testing.assert_array_equal(f.encode(f.decode(codes)), np.where(codes == second_zero, 0, codes))


@pytest.mark.parametrize("bits", range(1, 9))
def test_integers_are_twos_complement(bits):
    codes = np.arange(1 << bits, dtype=np.uint8)
    signed = [c - (1 << bits) if c >> (bits - 1) else c for c in range(1 << bits)]
    np.testing.assert_array_equal(Format.parse(f"int{bits}").decode(codes), signed)
    np.testing.assert_array_equal(Format.parse(f"uint{bits}").decode(codes), codes)


def test_binary_and_ternary():
    np.testing.assert_array_equal(Format.parse("binary").values, [-1, 1])
    np.testing.assert_array_equal(Format.parse("binary").encode([-3.0, -1e-30, 0.0, 1e-30, 5.0]), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(Format.parse("binary").encode(0.0, "nearest_away"), 1)
    np.testing.assert_array_equal(Format.parse("ternary").values, [0, 1, 0, -1])
    np.testing.assert_array_equal(Format.parse("ternary").encode([-9, -0.51, -0.5, 0.5, 0.51, 9]), [3, 3, 0, 0, 1, 1])


def test_nf4_is_made_of_normal_quantiles():
    """Equal steps of probability on each side, rescaled to 1; 0 belongs to both sides (QLoRA, section 3)."""
    offset = 0.9677083  # as published: (1 - 1/30 + 1 - 1/32) / 2
    quantile = torch.distributions.Normal(0, 1).icdf
    positive = quantile(torch.linspace(offset, 0.5, 9, dtype=torch.float64))[:-1]
    negative = quantile(torch.linspace(offset, 0.5, 8, dtype=torch.float64))[:-1]
    values = torch.cat([-negative, torch.zeros(1, dtype=torch.float64), positive.flip(0)]).sort().values
    np.testing.assert_allclose(Format.parse("nf4").values, (values / values.abs().max()).numpy(), rtol=0, atol=2e-6)


def test_dynamic8():
    """Runs of 1, 2, 4 ... 64 fractions, each a decade above the last, on both sides; then 0 and 1."""
    v = Format.parse("dynamic8").values
    assert len(np.unique(v)) == 256 and v[-1] == 1 and 0.0 in v and (np.diff(v) > 0).all()
    np.testing.assert_array_equal(v[v < 0], -v[(v > 0) & (v < 1)][::-1])
    for decade in range(7):
        run = v[(v > 10.0 ** (decade - 7)) & (v < 10.0 ** (decade - 6))]
        edges = np.linspace(0.1, 1, 2**decade + 1) * 10.0 ** (decade - 6)
        np.testing.assert_allclose(run, (edges[1:] + edges[:-1]) / 2, rtol=1e-7)


def test_flint4():
    """ANT, table 2: exponent by the position of the leading one; sign and 3 bits make the signed form."""
    assert Format.parse("uflint4").values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 64, 32, 16, 24, 8, 10, 12, 14]
    assert Format.parse("flint4").values.tolist() == [0, 1, 2, 3, 16, 8, 4, 6, 0, -1, -2, -3, -16, -8, -4, -6]


def test_own_codebook():
    f = Format.codebook("test_thirds", [3, -1, 0.5])
    assert (f.bits, f.signed, f.max, f.min, f.smallest, f.unit) == (2, True, 3, -1, 0.5, -1)
    assert Format.parse("test_thirds") is f and Format.codebook("test_thirds", [3, -1, 0.5]) == f
    np.testing.assert_array_equal(f.grid[:3], [6, -2, 1])
    np.testing.assert_array_equal(f.encode([10.0, -0.26, -0.24]), [0, 1, 2])
    np.testing.assert_array_equal(f.encode([1.75, -0.25]), [0, 2])  # ties
    np.testing.assert_array_equal(f.encode([1.75, -0.25], "nearest_away"), [0, 1])  # -1 is farther from 0 than 0.5
    with pytest.raises(ValueError, match=r"code 3 at \(1,\) is out of range for test_thirds: codes are 0..2"):
        f.decode(np.array([0, 3], np.uint8))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("nf4", [0.0, 1.0], "already means other values"),
        ("e2m1", [0.0, 1.0], "must be lower-case"),
        ("Mine", [0.0, 1.0], "must be lower-case"),
        ("test_bad", [1.0], "2 to 256 values, got shape"),
        ("test_bad", [[1.0, 2.0]], "2 to 256 values, got shape"),
        ("test_bad", np.arange(257), "2 to 256 values, got shape"),
        ("test_bad", [0.0, np.nan], "holds nan: every value must be finite"),
        ("test_bad", [0.0, np.inf], "holds inf: every value must be finite"),
        ("test_bad", [0.0, 0.1], "0.1.* is not a float32 value"),
        ("test_bad", [0.0, -0.0], "only zeros"),
    ],
)
def test_bad_codebooks(name, values, message):
    with pytest.raises(ValueError, match=message):
        Format.codebook(name, values)
    with pytest.raises(ValueError, match="unknown format 'test_bad'"):
        Format.parse("test_bad")
