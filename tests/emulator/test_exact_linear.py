"""The exact contract: every pair of formats and every place for scales, bit for bit against integers and fractions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from emulator.exact_oracle import assert_same_bits, float32_of, linear
from minifloat import Format, emulator
from minifloat.emulator import quantize

FLOATS = ["e1m1", "e2m1", "e3m0", "e2m3", "e3m2", "e3m4", "e4m3fn", "e4m3fnuz", "e5m2", "e7m0", "ue3m2", "e8m0fnu"]
OTHERS = ["binary", "ternary", "int2", "int4", "int8", "uint4", "uint8", "nf4", "dynamic8", "flint4"]
PAIRS = list(itertools.product(FLOATS + OTHERS, FLOATS + OTHERS))
PLACES = ["row", "tensor", "g8", "g12-bf16", "g8-e8m0", "g12-e4m3fn", "g24", "row-bf16", "tensor-e8m0", "row-e4m3fn"]
SPECS = [
    *("int8-row", "int8-tensor", "int4-g8", "int4-g12-zp", "uint4-g8-bf16-zp", "uint8-row-zp", "e2m1-g8-e8m0"),
    *("e2m1-g12-e4m3fn", "nf4-g24", "e4m3fn-g2-bf16", "e5m2-tensor-e4m3fn", "mxfp4-mse"),
]
K = 24


def data(rows: int, k: int, seed: int) -> np.ndarray:
    """Normal values whose rows differ in size, so that a scale taken from a wrong row or group is seen."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, k)) * np.exp2(rng.integers(-6, 7, (rows, k // 4)).repeat(4, 1))).astype(
        np.float32
    )


def check(weight, activation, k=K, seed=0, bias=False):
    x, w = data(3, k, seed), data(4, k, seed + 1)
    b = data(4, 4, seed + 2)[:, 0] if bias else None
    q = quantize(w, weight)
    assert_same_bits(emulator.linear(x, q, b, activation), linear(quantize(x, activation), q, b))


@pytest.mark.parametrize(("weight", "activation"), PAIRS)
def test_every_pair_of_formats(weight, activation):
    """The place of the scales changes from pair to pair, so that together all of them meet."""
    at = PAIRS.index((weight, activation))
    place, other = PLACES[at % 10], PLACES[(at // 3) % 10]
    check(f"{weight}-{place}", f"{activation}-{other}", seed=at, bias=at % 2 == 0)


@pytest.mark.parametrize(("weight", "activation"), list(itertools.product(SPECS, SPECS)))
def test_every_place_for_scales(weight, activation):
    """Two different group sizes make groups of their greatest common divisor."""
    check(weight, activation, k=96 if "mxfp4-mse" in (weight, activation) else K)


@pytest.mark.parametrize("k", [1, 2, 3, 31, 97])
def test_lengths(k):
    x, w = (np.resize(data(rows, 100, k)[:, :k], (rows, k)) for rows in (2, 3))
    for weight, activation in (("int4-row", "int8-row"), ("e5m2-row", "e5m2-row"), ("e2m1-g1-e8m0", "int8-tensor")):
        q = quantize(w, weight)
        assert_same_bits(emulator.linear(x, q, None, activation), linear(quantize(x, activation), q))


def test_e5m2_sums_keep_what_float64_would_lose():
    """57344**2 - 57344**2 + 2**-32 is 2**-32, which is below the last bit of a float64 near 2**31.6."""
    top, tiny = 57344.0, 2.0**-16
    w = quantize(np.array([[top, top, tiny], [top, -top, tiny]], np.float32), "e5m2-row")
    x = np.array([[top, -top, tiny], [top, top, tiny]], np.float32)
    y = emulator.linear(x, w, None, "e5m2-row")
    np.testing.assert_array_equal(y, [[tiny**2, 2 * top**2], [2 * top**2, tiny**2]])
    assert_same_bits(y, linear(quantize(x, "e5m2-row"), w))


def test_sums_are_rounded_once_to_float32():
    """2**24 + 1 is a tie of float32; a third term breaks it by less than float64 holds, so float64 would leave the tie.

    The last two columns are there to make every scale 1: 2**64 is the largest value of e7m0.
    """
    x = [[2.0**24, 1, 2.0**-50], [2.0**24, 1, 0], [2.0**24, 1, -(2.0**-50)], [-(2.0**24), -1, -(2.0**-50)]]
    x = np.array([[*row, 2.0**64, 0] for row in x], np.float32)
    w = quantize(np.array([[1, 1, 1, 0, 2.0**64]], np.float32), "e7m0-row")
    y = emulator.linear(x, w, None, "e7m0-row")
    np.testing.assert_array_equal(y[:, 0], [2**24 + 2, 2**24, 2**24, -(2**24) - 2])
    assert_same_bits(y, linear(quantize(x, "e7m0-row"), w))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pair", ["e5m2 e5m2", "e7m0 e7m0", "e8m0fnu e7m0", "int8 int8", "nf4 e5m2", "e4m3fn e5m2"])
def test_any_codes_of_any_sign(pair, seed):
    """All codes alike, not only those that normal data reaches: sums of any width, cancellation, infinite results."""
    rng = np.random.default_rng(seed)
    operands = []
    for name in pair.split():
        f = Format.parse(name)
        codes = rng.choice(np.flatnonzero(f.is_number), (6, 40))
        codes[:, 0] = int(np.flatnonzero(f.values == f.scale_max)[0])
        operands.append(f.decode(codes) * np.exp2(rng.integers(-40, 1, (6, 1))).astype(np.float32))
    x, w = operands
    x[1, 20:], w[:, 20:] = -x[1, :20], w[:, :20]  # sums to zero where the format is signed
    q, activation = quantize(w, f"{pair.split()[1]}-row"), f"{pair.split()[0]}-row"
    assert_same_bits(emulator.linear(x, q, None, activation), linear(quantize(x, activation), q))


def test_overflow_becomes_infinity():
    x, w = np.full((1, 8), 1e30, np.float32), np.full((2, 8), 1e30, np.float32)
    w[1] *= -1
    for specs in (("int8-row", "int8-row"), ("e5m2-g4", "int4-g8-bf16")):
        y = emulator.linear(x, quantize(w, specs[0]), None, specs[1])
        np.testing.assert_array_equal(y, [[np.inf, -np.inf]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_result_has_the_dtype_of_x_rounded_once(dtype):
    x, w, b = data(6, K, 1), data(4, K, 2), data(4, 4, 3)[:, 1]
    is_torch = isinstance(dtype, torch.dtype)
    given = torch.from_numpy(x).to(dtype) if is_torch else x.astype(dtype)
    widened = given.float().numpy() if is_torch else given.astype(np.float32)
    for weight, activation in (("e2m1-g8-e8m0", "int8-row"), ("int4-g12-zp", "e4m3fn-g8")):
        q = quantize(w, weight)
        y = emulator.linear(given, q, b, activation)
        expected = linear(quantize(widened, activation), q, b)
        expected = torch.from_numpy(expected).to(dtype) if is_torch else expected.astype(dtype)
        assert y.dtype == dtype and isinstance(y, torch.Tensor) == is_torch and (y == expected).all()
        batched = emulator.linear(given.reshape(2, 1, 3, K), q, b, activation)
        assert tuple(batched.shape) == (2, 1, 3, 4) and (batched.reshape(6, 4) == y).all()
        strided = emulator.linear(given[::2], q, b, activation)
        assert (strided == y[::2]).all()


@pytest.mark.parametrize(
    "weight", ["int8-row", "int8-tensor", "e2m1-g8-e8m0", "int4-g8-zp", "e2m1-g8-e4m3fn", "e5m2-row"]
)
@pytest.mark.parametrize("activation", ["int8-row", "e4m3fn-tensor", "int8-g12", "e2m1-g8-e4m3fn", None])
def test_empty_shapes(weight, activation):
    bias = np.array([1.5, -2, 3], np.float32)
    for m, n, k in itertools.product((0, 2), (0, 3), (0, 24)):
        q = quantize(np.ones((n, k), np.float32), weight)
        y = emulator.linear(np.zeros((m, k), np.float32), q, bias[:n], activation)
        assert y.shape == (m, n) and y.dtype == np.float32
        np.testing.assert_array_equal(y, np.broadcast_to(bias[:n], (m, n)))
    q = quantize(np.ones((3, 0), np.float32), weight)
    assert emulator.linear(torch.zeros(2, 5, 0), q, None, activation).shape == (2, 5, 3)


def test_rows_are_independent_but_for_a_tensor_scale():
    x, w = data(5, K, 4), data(3, K, 5)
    q = quantize(w, "e2m1-g8-e8m0")
    for activation in ("int8-row", "e4m3fn-g12", "int4-g8-zp"):
        y = emulator.linear(x, q, None, activation)
        for m in range(5):
            assert_same_bits(emulator.linear(x[m : m + 1], q, None, activation), y[m : m + 1])


def test_mismatched_k_and_float64():
    q = quantize(np.ones((3, K), np.float32), "int8-row")
    with pytest.raises(ValueError, match="linear: x has K=25 but the weight has K=24"):
        emulator.linear(np.ones((2, 25), np.float32), q, None, "int8-row")
    with pytest.raises(ValueError, match="linear: x is float64; convert it to float32"):
        emulator.linear(np.ones((2, K)), q, None, "int8-row")
    with pytest.raises(ValueError, match="K=24 is smaller than the group size 32"):
        emulator.linear(np.ones((2, K), np.float32), q, None, "int8-g32")


def test_the_oracle_rounds_as_numpy_does():
    rng = np.random.default_rng(6)
    for x in np.concatenate([rng.standard_normal(300) * np.exp2(rng.uniform(-160, 130, 300)), [0, 2.0**-150, 3.5e38]]):
        with np.errstate(over="ignore"):
            assert float32_of(Fraction(x)) == np.float32(x)
