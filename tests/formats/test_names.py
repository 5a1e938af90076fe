"""Format names: every valid one round-trips, every other one is refused with the documented words."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from formats.float_oracle import CASES, OWN_BIAS
from minifloat import Format
from minifloat.formats import format_names


@pytest.mark.parametrize("c", [pytest.param(c, id=c.name) for c in CASES + OWN_BIAS])
def test_float_names_round_trip(c):
    f = Format.parse(c.name)
    assert str(f) == c.name and Format.parse(str(f)) == f
    assert (f.kind, f.bits, f.signed, f.special) == ("float", c.bits, c.signed, c.special)
    assert (f.exponent_bits, f.mantissa_bits, f.bias) == (c.exponent_bits, c.mantissa_bits, c.bias)


def test_listed_names_round_trip():
    names = format_names()
    assert {"int1", "uint8", "e2m1", "e4m3fn", "binary", "ternary", "nf4", "dynamic8", "flint4"} <= set(names)
    for name in names:
        assert str(Format.parse(name)) == name
        assert Format.parse(Format.parse(name)) is Format.parse(name) or Format.parse(name).kind != "codebook"


@given(
    st.sampled_from(["", "u"]),
    st.integers(1, 8),
    st.integers(0, 7),
    st.none() | st.integers(-130, 160),
    st.sampled_from(["", "finite", "fn", "fnuz", "ieee", "fnu"]),
)
@example("", 1, 6, 145, "finite")
def test_any_name_is_one_format_or_refused(sign, exponent_bits, mantissa_bits, bias, suffix):
    name = f"{sign}e{exponent_bits}m{mantissa_bits}{'' if bias is None else f'b{bias}'}{suffix}"
    try:
        f = Format.parse(name)
    except ValueError as error:
        assert name in str(error)
        return
    assert Format.parse(str(f)) == f and str(Format.parse(str(f))) == str(f)
    values = f.values[f.is_number]
    np.testing.assert_array_equal(values.astype(np.float32), values)  # float32 holds every value
    assert f.max > 0 and 0 < f.smallest <= f.max and (f.min < 0) == f.signed
    assert not f.is_number.all() or f.special == "none"
    exact = [int(g) * Fraction(2) ** f.unit for g in f.grid[f.is_number]]
    assert exact == [Fraction(v) for v in values] and f.grid_max == max(abs(int(g)) for g in f.grid)


@given(st.text(max_size=12) | st.from_regex(r"\Au?(e\d+m\d+(b-?\d+)?|int\d+)[a-z]{0,6}\Z"))
@example("e2m1\n")
@example("e2m1b")
@example("int٣")
@example("")
def test_any_text_parses_or_raises_value_error(text):
    try:
        f = Format.parse(text)
    except ValueError:
        return
    assert Format.parse(str(f)) == f


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("e2m1b1", "e2m1"),
        ("e4m3b7fn", "e4m3fn"),
        ("e4m3b8fnuz", "e4m3fnuz"),
        ("e5m2ieee", "e5m2"),
        ("e5m2b15", "e5m2"),
        ("e3m4finite", "e3m4"),
        ("e8m0b127fnu", "e8m0fnu"),
        ("ue3m1b-2", "ue3m1b-2"),
    ],
)
def test_one_name_for_each_format(written, canonical):
    assert str(Format.parse(written)) == canonical and Format.parse(written) == Format.parse(canonical)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "e4m3",
            r"'e4m3' is read differently .* did you mean 'e4m3fn' \(OCP\), 'e4m3fnuz', 'e4m3ieee' .* 'e4m3finite'",
        ),
        ("e4m3b11", "'e4m3b11' is read differently"),
        ("e8m0", "did you mean 'e8m0fnu'"),
        ("ue8m0", "did you mean 'e8m0fnu'"),
        ("e2m1fn", "below 8 bits every code is a number; write 'e2m1'"),
        ("e0m3", "'e0m3' has 4 bits and 0 exponent bits: need 2 to 8 bits and E >= 1"),
        ("e5m3", "'e5m3' has 9 bits and 5 exponent bits: need 2 to 8 bits"),
        ("ue1m0", "has 1 bits"),
        ("e7m0ieee", "needs a mantissa bit to tell NaN from infinity"),
        ("ue4m4fnuz", "fnuz stores NaN in the code of minus zero, which an unsigned format lacks"),
        ("ue8m0fnu", "the suffix fnu means unsigned, no zero, m0, as in 'e8m0fnu'"),
        ("e4m3fnu", "the suffix fnu means"),
        ("e5m2b-100", r"beyond float32 .*: its bias must be between -97 and 148"),
        ("ue8m0finite", "its bias must be between 128 and 150"),
        ("int9", "'int9': integers have 1 to 8 bits"),
        ("uint0", "'uint0': integers have 1 to 8 bits"),
        ("int04", "'int04': integers have 1 to 8 bits"),
        ("float8", "unknown format 'float8'"),
        ("e4m3fm", "unknown format 'e4m3fm': did you mean 'e4m3fn' or 'e4m3fnuz'"),
        ("nf5", "unknown format 'nf5': did you mean 'nf4'"),
        ("quux", "unknown format 'quux': use e{E}m{M}, int{n}, uint{n} or one of binary, ternary"),
        ("E2M1", "unknown format 'E2M1'"),
        (" e2m1", "unknown format ' e2m1'"),
        (8, "a format is named by a string such as 'e2m1', got int"),
        (None, "got NoneType"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(ValueError, match=message):
        Format.parse(name)


@pytest.mark.parametrize(("name", "low", "high"), [("e5m2", -97, 148), ("e2m1", -124, 149), ("e4m3fn", -112, 147)])
def test_bias_limits_are_those_named(name, low, high):
    """What the error calls the range of biases is the range: the ends parse, one further does not."""
    split, suffix = name[:4], name[4:]
    for bias, good in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
        if good:
            assert np.isfinite(np.float32(Format.parse(f"{split}b{bias}{suffix}").max))
        else:
            with pytest.raises(ValueError, match=f"its bias must be between {low} and {high}"):
                Format.parse(f"{split}b{bias}{suffix}")


def test_formats_are_plain_data():
    import copy
    import pickle

    for name in ("e2m1", "e4m3fnuz", "int4", "nf4"):
        f = Format.parse(name)
        assert f.max and pickle.loads(pickle.dumps(f)) == f and copy.deepcopy(f) == f and hash(f) == hash(copy.copy(f))
