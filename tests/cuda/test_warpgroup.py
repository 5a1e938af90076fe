"""Many rows of x on sm_90a: linear_warpgroup, on the CPU, equals the emulator or keeps the float contract's bound."""

import numpy as np
import pytest
import torch

import minifloat as mf
from checks import assert_within_float_bound

EXACT = (
    *(
        "binary-row",
        "ternary-g32",
        "int1-tensor",
        "int2-g64-bf16",
        "uint3-row",
        "int3-g128",
        "uint4-g32-zp",
        "int4-row",
    ),
    *(
        "e2m1-g32-e8m0",
        "flint4-row",
        "e3m0-g64",
        "int5-g32",
        "e2m2-row",
        "mxfp6-e2m3",
        "uint6-row-zp",
        "int7-g96",
        "e2m4-row",
    ),
    *("int8-g32", "uint8-g64-zp", "e1m6-row"),
)
FLOAT = (
    *("binary-row", "ternary-g16", "int2-g32", "int3-row", "uint4-g32-zp", "nvfp4", "e2m1-g24", "e1m1-row", "int5-g64"),
    *("e2m2-row", "e3m2-g16", "uint6-g16-zp", "e2m3-row", "int7-tensor", "e3m3-g128", "int8-row", "uint8-g96-zp"),
    *("e4m3fn-row", "e4m3fnuz-g32", "e5m2-g64", "ue4m4-row", "flint4-g32"),
)
ACTIVATIONS = ("int8-row", "int8-g32", "int8-tensor", "e2m3-row", "mxint8", "e2m1-g64-bf16")


def exact(shim, same_bits, q, x, bias, activation, multiprocessors=132):
    y, route, math = shim.linear(x, *shim.prepare(q, activation), bias, 90, multiprocessors)
    assert route == "warpgroup" and math in ("int8", "int16")
    same_bits(y, mf.emulator.linear(x, q, bias, activation))


def within_the_bound(shim, q, x, bias, multiprocessors=132):
    y, route, _ = shim.linear(x, *shim.prepare(q, None), bias, 90, multiprocessors)
    assert route == "warpgroup"
    assert_within_float_bound(y, q, x, bias)


@pytest.mark.parametrize("weight", EXACT)
def test_exact_formats(shim, same_bits, make, weight):
    start = EXACT.index(weight)
    k = 480 if "g96" in weight else 384
    q, x, bias, spec = make(weight, ACTIVATIONS[start % len(ACTIVATIONS)], 20, 70, k, start)
    exact(shim, same_bits, q, x + 0.3, bias, spec)


@pytest.mark.parametrize("weight", ["e3m1-row", "mxfp6-e3m2", "e3m3-g64", "e2m5-row", "e3m4-g128"])
def test_two_digits(any_order, same_bits, make, weight):
    for activation in ("int8-row", "e3m2-g32"):
        exact(any_order, same_bits, *make(weight, activation, 20, 20, 384, 1))
    q, x, bias, spec = make("uint4-g32-zp", "uint8-row-zp", 20, 20, 320, 1)
    exact(any_order, same_bits, q, x + 0.5, bias, spec)


@pytest.mark.parametrize("weight", FLOAT)
def test_float_formats(shim, make, weight):
    dtype = (torch.float16, torch.bfloat16)[FLOAT.index(weight) % 2]
    q, _, bias, _ = make(weight, None, 20, 70, 384, 1)
    within_the_bound(shim, q, torch.randn(20, 384).to(dtype), bias)


def test_large_tiles(any_order, same_bits, make):
    """128 rows a block, where that leaves no multiprocessor without work; blocks past the last row and output."""
    for weight, activation in (("int4-row", "int8-row"), ("e2m1-g64", "int8-g32"), ("uint8-g128-zp", "int8-row")):
        exact(any_order, same_bits, *make(weight, activation, 140, 130, 512, 2), multiprocessors=4)
    for weight in ("e2m3-row", "int4-g64"):
        q, _, bias, _ = make(weight, None, 140, 130, 512, 2)
        within_the_bound(any_order, q, torch.randn(140, 512).half(), bias, multiprocessors=4)


def test_long_k_in_parts(any_order, same_bits, make):
    """More slabs than the ring holds; K shared out over blocks where order is free, else in order."""
    exact(any_order, same_bits, *make("int8-row", "int8-row", 20, 40, 9 * 256, 1))
    exact(any_order, same_bits, *make("e2m1-g512", "e2m1-g32", 20, 40, 6 * 256, 1))
    for weight in ("int4-row", "e2m1-g32"):
        q, _, bias, _ = make(weight, None, 20, 40, 9 * 256, 1)
        within_the_bound(any_order, q, torch.randn(20, 9 * 256).bfloat16(), bias)


@pytest.mark.parametrize("k", [1, 31, 97, 257, 523])
def test_odd_k(shim, same_bits, make, k):
    exact(shim, same_bits, *make("e2m1-row", "int8-row", 18, 19, k, k))
    q, _, bias, _ = make("int3-row", None, 18, 19, k, k)
    within_the_bound(shim, q, torch.randn(18, k).half(), bias)


def test_more_rows_than_run_together(shim, same_bits, make):
    """Nine blocks of rows: one more than share weights in L2."""
    exact(shim, same_bits, *make("int4-row", "int8-row", 64 * 8 + 1, 130, 128, 1))


def test_what_stays_elsewhere(shim, same_bits, make):
    """Folds of 16 in the exact contract, every other GPU, and who prefers it."""
    for weight, activation, capability, prefer, want in (
        ("nvfp4", "int8-row", 90, "", "wide"),
        ("e3m2-row", "int8-row", 80, "", "narrow"),
        ("int4-row", "int8-row", 80, "", "wide"),
        ("int4-row", "int8-row", 100, "", "wide"),
        ("int4-row", "int8-row", 90, "wide", "wide"),
        ("e3m2-row", "int8-row", 90, "wide", "narrow"),
    ):
        q, x, bias, spec = make(weight, activation, 20, 20, 64, 1)
        y, route, _ = shim.linear(x, *shim.prepare(q, spec), bias, capability, prefer=prefer)
        assert route == want
        same_bits(y, mf.emulator.linear(x, q, bias, spec))


def test_no_k_leaves_the_bias(shim, make):
    q, _, bias, _ = make("int4-row", None, 20, 17, 0, 0)
    y, route, _ = shim.linear(torch.empty(20, 0).half(), *shim.prepare(q, None), bias, 90)
    assert route == "warpgroup" and torch.equal(y, bias.half().expand(20, 17))


FLOAT8 = (
    *(
        "binary-row",
        "ternary-g32",
        "int2-g64",
        "uint3-row",
        "int4-g128",
        "e2m1-g32-e8m0",
        "e2m1-row",
        "e3m0-row",
        "int5-row",
    ),
    *("e2m2-g24", "mxfp6-e2m3", "e3m2-g256", "e3m3-row", "e4m3fn-row", "mxfp8-e4m3", "flint4-row"),
)
FLOAT8_SUMS = 139 * 2.0**-13  # docs/numerics.md


@pytest.mark.parametrize("weight", FLOAT8)
def test_float8(any_order, make, weight):
    """x of e4m3fn, its sums as the tensor cores of an H100 were seen to round them."""
    k = 480 if "g24" in weight else 512
    q, x, bias, _ = make(weight, None, 20, 40, k, 1)
    x = x.to(torch.float8_e4m3fn)
    prepared = any_order.prepare(q, None)
    assert any_order.multiplies_float8(prepared[1], 20)
    y, route, math = any_order.linear(x, *prepared, bias, 90)
    assert (route, math, y.dtype) == ("warpgroup", "float8", torch.bfloat16)
    w, x = mf.emulator.dequantize(q), x.double().numpy()
    want = x @ w.T + bias.double().numpy()
    bound = mf.emulator.float_bound(x, q, bias) * (1 + FLOAT8_SUMS) + FLOAT8_SUMS * (np.abs(x) @ np.abs(w).T)
    bound += 2.0**-8 * (np.abs(want) + bound)  # y is bfloat16
    assert (np.abs(y.double().numpy() - want) <= bound).all()


def test_float8_sums_go_on_in_float32(shim):
    """Equal terms of 7 bits: once a sum had more than 14 bits, the tensor cores would cut every one of them."""
    x = torch.full((17, 512), 13.0).to(torch.float8_e4m3fn)
    q = mf.quantize(torch.full((16, 512), 5.0), "e4m3fn-row")
    y = shim.linear(x, *shim.prepare(q, None), None, 90)[0].double()
    want = float(13 * q.dequantize()[0].double().sum())
    assert (y - want).abs().max() <= 2.0**-8 * want


def test_float8_nan_stays_in_its_row(shim, make):
    q, x, bias, _ = make("e2m1-g32", None, 20, 16, 256, 1)
    x[3, 100] = float("nan")
    y = shim.linear(x.to(torch.float8_e4m3fn), *shim.prepare(q, None), bias, 90)[0]
    assert y[3].isnan().all() and y[:3].isfinite().all() and y[4:].isfinite().all()


def test_where_float8_is_widened_first(shim, make):
    """Weights that are not among its values, zero points, few rows, other GPUs."""
    for weight, m, capability in (
        ("nf4-g64", 64, 90),
        ("int8-row", 64, 90),
        ("e5m2-row", 64, 90),
        ("uint4-g32-zp", 64, 90),
        ("nvfp4", 64, 90),
        ("e4m3fn-row", 16, 90),
        ("e4m3fn-row", 64, 89),
    ):
        plan = shim.prepare(make(weight, None, 1, 16, 64, 0)[0], None)[1]
        assert not shim.multiplies_float8(plan, m, capability)
