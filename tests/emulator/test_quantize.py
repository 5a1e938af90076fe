"""Quantizing and dequantizing as a whole: shapes, NaN and infinity, errors; and the float contract with its bound."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minifloat import emulator
from minifloat.emulator import quantize

SPECS = ["int8-row", "int4-g8", "uint4-g8-bf16-zp", "e2m1-g8-e8m0", "e2m1-g8-e4m3fn", "e4m3fn-tensor", "nf4-g24"]


def data(rows: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, k)).astype(np.float32)


@pytest.mark.parametrize("rest", ["", "-bf16", "-e8m0", "-e4m3fn", "-mse"])
@pytest.mark.parametrize("name", ["e2m1", "int4", "nf4", "e5m2"])
def test_granularities_meet(name, rest):
    """A group of all K is a row; one row alone is a tensor."""
    x = data(5, 24)
    row, group = quantize(x, f"{name}-row{rest}"), quantize(x, f"{name}-g24{rest}")
    np.testing.assert_array_equal(row.codes, group.codes)
    np.testing.assert_array_equal(row.scales, group.scales)
    tensor, flat = quantize(x, f"{name}-tensor{rest}"), quantize(x.reshape(1, -1), f"{name}-row{rest}")
    np.testing.assert_array_equal(tensor.codes.ravel(), flat.codes.ravel())
    assert tensor.scales.shape == (1, 1) and tensor.scales == flat.scales


@pytest.mark.parametrize("spec", SPECS)
def test_dequantize_is_value_times_scale(spec):
    x = data(4, 24)
    q = quantize(x, spec)
    size = 24 if spec.endswith(("row", "tensor")) else q.spec.group_size
    for m in range(4):
        for k in range(24):
            at = (0, 0) if spec.endswith("tensor") else (m, k // size)
            value = Fraction(q.spec.format.values[q.codes[m, k]])
            value -= 0 if q.zero_points is None else int(q.zero_points[at])
            value *= Fraction(float(q.scales[at])) * Fraction(1 if q.tensor_scale is None else float(q.tensor_scale))
            assert abs(emulator.dequantize(q)[m, k] - value) <= abs(value) * Fraction(1, 2**52)


@pytest.mark.parametrize("spec", SPECS)
def test_kinds_agree(spec):
    x = torch.from_numpy(data(4, 24)).bfloat16()
    a, b = quantize(x, spec), quantize(x.float().numpy(), spec)
    np.testing.assert_array_equal(a.codes, b.codes)
    np.testing.assert_array_equal(a.scales, b.scales)
    np.testing.assert_array_equal(quantize(np.asfortranarray(x.float()), spec).codes, b.codes)
    assert a.codes.dtype == np.uint8 and a.scales.dtype == np.float32
    assert isinstance(a.codes, np.ndarray)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", [(0, 24), (3, 0), (0, 0)])
def test_empty(spec, shape):
    q = quantize(np.zeros(shape, np.float32), spec)
    assert q.codes.shape == shape and emulator.dequantize(q).shape == shape
    rows, groups = q.scales.shape
    if spec == "e4m3fn-tensor":
        assert (rows, groups) == (1, 1)
    else:
        assert (rows, groups) == (shape[0], 1 if spec.endswith("row") else shape[1] // q.spec.group_size)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", ["int8-row", "int4-g8-zp", "mxfp4", "nvfp4", "nf4", "e3m4-tensor", "binary-row"])
def test_nan_and_infinity_are_refused_without_nan_codes(spec, bad):
    x = data(3, 192)
    x[1, 70] = x[2, 3] = bad
    name = quantize(data(3, 192), spec).spec.format
    with pytest.raises(ValueError, match=rf"quantize: x holds {bad} at \(1, 70\) and {name} has no NaN"):
        quantize(x, spec)
    q = quantize(data(2, 192), "int8-row")
    with pytest.raises(ValueError, match=rf"x holds {bad} at \(1, 70\)"):
        emulator.linear(x, q, None, spec)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", ["e4m3fn-g8", "e5m2-g8-e8m0", "e4m3fn-row", "e5m2fnuz-row-bf16", "e4m3fnuz-tensor"])
def test_nan_and_infinity_spoil_their_scale_and_nothing_else(spec, bad):
    x, w = data(3, 24), data(4, 24, seed=1)
    clean = quantize(x, spec)
    x[1, 9] = bad
    q = quantize(x, spec)
    reach = {"tensor": np.s_[:, :], "row": np.s_[1, :], "group": np.s_[1, 8:16]}[q.spec.granularity]
    spoiled = np.zeros((3, 24), bool)
    spoiled[reach] = True
    np.testing.assert_array_equal(np.isnan(emulator.dequantize(q)), spoiled)
    np.testing.assert_array_equal(q.codes[~spoiled], clean.codes[~spoiled])
    for weight in ("int8-row", "e2m1-g12-e8m0"):
        y = emulator.linear(x, quantize(w, weight), None, spec)
        assert np.isnan(y[1]).all() and np.isnan(y).all() == (q.spec.granularity == "tensor")
        if q.spec.granularity != "tensor":
            expected = emulator.linear(data(3, 24), quantize(w, weight), None, spec)
            np.testing.assert_array_equal(y[[0, 2]], expected[[0, 2]])
        weights = emulator.linear(w, q, None, "int8-row")  # NaN as a weight spoils an output column
        assert np.isnan(weights[:, 1]).all() and np.isnan(weights).all() == (q.spec.granularity == "tensor")


def test_bad_shapes_and_types():
    for k, message in (
        (100, "K=100 is not a multiple of the group size 32; pad x and w to 128"),
        (8, "K=8 is smaller"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize(np.zeros((2, k), np.float32), "mxfp4")
    with pytest.raises(ValueError, match="quantize: x is float64; convert it to float32"):
        quantize(np.zeros((2, 32)), "mxfp4")
    with pytest.raises(ValueError, match="unknown format 'quux'"):
        quantize(np.zeros((2, 32), np.float32), "quux-row")


@pytest.mark.parametrize("weight", [*SPECS, "e2m1-g8-mse", "e5m2-g8", "binary-row"])
@pytest.mark.parametrize("k", [24, 192])
def test_float_contract(weight, k):
    """The reference is the real result up to float64's error; what torch sums in float32 lies within the bound."""
    x, w, bias = data(5, k, 1), data(4, k, 2), data(1, 4, 3)[0]
    q = quantize(w, weight)
    values = emulator.dequantize(q)
    exact = [[sum(Fraction(float(a)) * Fraction(b) for a, b in zip(r, v, strict=True)) for v in values] for r in x]
    exact = np.array([[float(v + Fraction(float(b))) for v, b in zip(row, bias, strict=True)] for row in exact])
    y, bound = emulator.linear(x, q, bias), emulator.float_bound(x, q, bias)
    assert y.dtype == np.float32 and bound.shape == y.shape
    np.testing.assert_allclose(y, exact, rtol=2.0**-23, atol=1e-12)
    ours = F.linear(torch.from_numpy(x), torch.from_numpy(values.astype(np.float32)), torch.from_numpy(bias)).numpy()
    assert (np.abs(ours - exact) <= bound).all()
    terms = k + q.scales.shape[1] + 4
    size = np.abs(x.astype(float)) @ np.abs(values).T + np.abs(bias)
    np.testing.assert_allclose(bound, terms * 2.0**-24 * size, rtol=1e-3)  # and it is no looser than stated


def test_float_contract_keeps_kind_and_dtype():
    q = quantize(data(4, 24), "int4-g8")
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x = torch.from_numpy(data(6, 24, 5)).to(dtype)
        y = emulator.linear(x.reshape(2, 3, 24), q)
        assert y.dtype == dtype and tuple(y.shape) == (2, 3, 4)
        expected = x.double() @ torch.from_numpy(emulator.dequantize(q)).T
        torch.testing.assert_close(y.reshape(6, 4), expected.to(dtype), rtol=0, atol=0)
    assert emulator.linear(data(2, 24).astype(np.float16), q).dtype == np.float16
