"""What encode and decode take and give back: kinds, dtypes, shapes; and how they refuse."""

import numpy as np
import pytest
import torch

from minifloat import Format

E2M1 = Format.parse("e2m1")
X = [[0.3, -1.7, 6.5], [2.4, -0.1, 0.0]]
CODES = [[1, 11, 7], [4, 8, 0]]
KINDS = [np.float16, np.float32, np.float64, torch.bfloat16, torch.float16, torch.float32, torch.float64]


def make(values, dtype):
    return torch.tensor(values, dtype=dtype) if isinstance(dtype, torch.dtype) else np.array(values, dtype=dtype)


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_kind_and_shape_are_kept(dtype):
    x = make(X, dtype)
    for given, expected in ((x, CODES), (x[0], CODES[0]), (x[1:, 1], [8]), (x[:, ::2], np.array(CODES)[:, ::2])):
        codes = E2M1.encode(given)
        assert isinstance(codes, torch.Tensor) == isinstance(x, torch.Tensor)
        assert codes.dtype == (torch.uint8 if isinstance(x, torch.Tensor) else np.uint8)
        assert tuple(codes.shape) == tuple(given.shape)
        np.testing.assert_array_equal(np.asarray(codes), expected)


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_transposed_empty_and_scalar(dtype):
    x = make(X, dtype)
    np.testing.assert_array_equal(np.asarray(E2M1.encode(x.T)), np.array(CODES).T)
    for shape in ((0,), (0, 3), (2, 0, 4)):
        empty = E2M1.encode(make(np.zeros(shape), dtype))
        assert tuple(empty.shape) == shape and tuple(E2M1.decode(empty).shape) == shape
    for f in (E2M1, Format.parse("int4"), Format.parse("nf4"), Format.parse("e5m2")):
        one = f.encode(make(1.0, dtype))
        assert one.shape == () and f.decode(one).shape == () and float(f.decode(one)) == 1


@pytest.mark.parametrize("name", ["e2m1", "e4m3fn", "e5m2", "e7m0", "int8", "nf4"])
def test_dtypes_agree_on_the_same_values(name):
    """Every finite bfloat16 or float16 value gets the code of its float64 value."""
    f = Format.parse(name)
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
        x = x[torch.isfinite(x)]
        expected = f.encode(x.double().numpy())
        np.testing.assert_array_equal(f.encode(x).numpy(), expected)
        np.testing.assert_array_equal(f.encode(x.float()).numpy(), expected)
        np.testing.assert_array_equal(f.encode(x.float().numpy()), expected)


def test_lists_integers_and_gradients():
    np.testing.assert_array_equal(E2M1.encode(X), CODES)
    np.testing.assert_array_equal(E2M1.encode(np.arange(-3, 4)), [13, 12, 10, 0, 2, 4, 5])
    assert not E2M1.encode(torch.ones(3, requires_grad=True)).requires_grad


def test_inputs_are_left_alone():
    x = np.array([1.3, -2.6, 100.0], np.float32)
    kept = x.copy()
    E2M1.encode(x)
    np.testing.assert_array_equal(x, kept)
    for array in (E2M1.values, E2M1.grid):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_decode_kinds(kind):
    codes = kind(np.array(CODES, np.uint8))
    out = E2M1.decode(codes)
    assert out.dtype == (np.float32 if kind is np.asarray else torch.float32)
    np.testing.assert_array_equal(np.asarray(out), [[0.5, -1.5, 6], [2, -0.0, 0]])
    np.testing.assert_array_equal(np.asarray(E2M1.decode(codes.T)), np.asarray(out).T)


def test_nan_is_refused_where_it_has_no_code():
    x = np.zeros((4, 5))
    x[2, 3] = x[3, 0] = np.nan
    for name in ("e2m1", "e3m4", "e4m3finite", "int8", "nf4", "binary"):
        with pytest.raises(ValueError, match=rf"x holds NaN at \(2, 3\) and {name} has no NaN"):
            Format.parse(name).encode(x)
        with pytest.raises(ValueError, match=r"NaN at \(2, 3\)"):
            Format.parse(name).encode(torch.from_numpy(x))


@pytest.mark.parametrize("rounding", ["nearest_even", "nearest_away", "toward_zero", "up", "down", "stochastic"])
def test_nan_stays_nan(rounding):
    for name in ("e4m3fn", "e4m3fnuz", "e4m3ieee", "e5m2", "e5m2fnuz", "e8m0fnu", "ue4m4fn", "e7m0fn"):
        f = Format.parse(name)
        for overflow in ("saturate", "special"):
            codes = f.encode([1.0, np.nan, -np.nan], rounding, overflow, random_bits=np.zeros(3, np.uint32))
            assert np.isnan(f.decode(codes)).tolist() == [False, True, True]
            assert codes[1] == f.nan_code


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("e2m1", {"rounding": "nearest"}, "unknown rounding 'nearest': choose one of nearest_even, nearest_away"),
        ("e2m1", {"overflow": "wrap"}, "unknown overflow 'wrap': choose one of saturate, special"),
        ("e2m1", {"overflow": "special"}, "needs a format with infinity or NaN, and e2m1 has none: use 'saturate'"),
        ("int8", {"overflow": "special"}, "and int8 has none"),
        ("e2m1", {"rounding": "stochastic"}, r"stochastic rounding of shape \(2,\) needs random_bits"),
        ("e2m1", {"rounding": "stochastic", "random_bits": np.zeros(3, np.uint32)}, "of the same shape"),
    ],
)
def test_unknown_modes(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        Format.parse(name).encode(np.zeros(2), **arguments)


def test_bad_codes():
    with pytest.raises(ValueError, match=r"code 16 at \(1, 0\) is out of range for e2m1: codes are 0..15"):
        E2M1.decode(np.array([[3], [16]], np.uint8))
    with pytest.raises(ValueError, match=r"code -1 at \(0,\) is out of range"):
        E2M1.decode(torch.tensor([-1]))
    with pytest.raises(ValueError, match="codes must be integers .* got float32"):
        E2M1.decode(np.zeros(2, np.float32))
    assert Format.parse("e4m3fn").decode(np.array([255], np.uint8)).shape == (1,)
