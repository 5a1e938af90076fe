"""The float contract: the CUDA kernels, run on the CPU, keep the bound of docs/numerics.md.

On the CPU mma.sync adds its products one by one in float32. Tensor cores add them in an order and at a width of their
own: that they keep the bound too is for `make gpu` to show.
"""

import numpy as np
import pytest
import torch

import minifloat as mf
from checks import any_codes, assert_within_float_bound

WEIGHTS = (
    *("binary-row", "ternary-g16", "int1-row", "int2-g32", "int3-row", "int4-g32", "uint4-g32-zp", "int5-row"),
    *("uint6-g16-zp", "int7-tensor", "int8-row", "uint8-row-zp", "e1m1-g32", "e2m1-g32-e8m0", "nvfp4", "e2m2-row"),
    *("e3m2-row-bf16", "e2m3-g64", "e3m3-row", "e3m4-row", "e1m6-g64", "e4m3fn-row", "e4m3fnuz-g32", "e5m2-row"),
    *("e7m0-row", "ue4m4-row", "nf4-g64", "dynamic8-row", "flint4-row", "e3m0-g32"),
)
SHAPES = ((1, 17, 256), (4, 33, 192), (8, 16, 320), (13, 20, 512), (18, 70, 320))
OWN = {"signs": (-1, 1), "minus": (-1, 0), "bit": (0, 1), "any_two": (0.375, -48), "half": (0, 0.5)}
ODD = [(-1) ** i * (128 + 7 * i) * 2.0 ** (i % 5 - 9) for i in range(16)]  # 8 bits each: both 16-bit types hold them
OWN |= {"any_four": (0.375, -48, 0, 96), "any_eight": ODD[:8], "any_sixteen": ODD}
TERMS = {torch.float16: "float16x2", torch.bfloat16: "bfloat16x3"}
NOT_IN_16_BITS = {torch.float16: ("e7m0", "nf4", "dynamic8"), torch.bfloat16: ("nf4", "dynamic8")}


def check(shim, q, x, bias):
    """Returns the route and the kind of multiplication."""
    prepared = shim.prepare(q, None)
    y, route, math = shim.linear(x, *prepared, bias, prefer="usual")  # test_tables.py has the others
    if y is None:
        return route, math
    assert_within_float_bound(y, q, x, bias)
    return route, math


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_within_the_bound(shim, make, weight, dtype):
    for i in range(2):
        m, n, k = SHAPES[(WEIGHTS.index(weight) + i) % len(SHAPES)]
        q, _, bias, _ = make(weight, None, m, n, k, i)
        route, math = check(shim, q, torch.randn(m, k).to(dtype), bias)
        inexact = dtype == torch.float32 or weight.split("-")[0] in NOT_IN_16_BITS[dtype]
        terms = inexact and m > 8 and dtype != torch.float32 and weight != "e7m0-row"  # 2**126 between its values
        assert math == (TERMS[dtype] if terms else "float32" if inexact else str(dtype).split(".")[1])
        if not inexact:
            assert route == ("narrow" if m <= 16 else "wide")
        else:
            assert route == ("lanes" if m <= 8 else "narrow" if terms else "multiply")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OWN)
def test_own_values(shim, name, dtype):
    """Weights of one to four bits, each alone in its place, whatever multiplies them."""
    f = mf.Format.codebook(name, np.float32(OWN[name]))
    q = any_codes(mf.QuantSpec(f, "tensor"), (32, 256))
    w, x = q.dequantize(), torch.eye(256).to(dtype)
    layout, plan = shim.prepare(q, None)
    for capability, rows in ((80, 8), (80, 256), (90, 256)):
        for first in range(0, 256, rows):
            y, route, math = shim.linear(x[first : first + rows], layout, plan, None, capability, prefer="usual")
            if route == "multiply":
                continue
            assert math == str(dtype).removeprefix("torch.")
            want = w[:, first : first + rows].T
            assert torch.equal(y.float(), want.to(dtype).float()), (route, capability)


@pytest.mark.parametrize("dtype", TERMS, ids=str)
@pytest.mark.parametrize("bits", range(1, 9))
def test_sums_of_16_bit_numbers(any_order, bits, dtype):
    """Values with all 24 bits of a float32; differences of two close ones, within 7 roundings of either."""
    scales = torch.exp2(-3.0 * torch.arange(1 << bits).div(2, rounding_mode="floor").remainder(3))
    values = scales * (1 + torch.rand(1 << bits, generator=torch.Generator().manual_seed(bits)) / 1024)
    f = mf.Format.codebook(f"of_24_bits_{bits}", values.double().numpy())
    q = any_codes(mf.QuantSpec(f, "tensor"), (64, 2))
    x = torch.tensor([[1.0, -1.0]]).expand(9, 2).to(dtype)
    assert check(any_order, q, x, None) == ("narrow", TERMS[dtype])


@pytest.mark.parametrize("dtype", TERMS, ids=str)
@pytest.mark.parametrize(
    ("weight", "k"),
    [("nf4-g64", 512), ("nf4-g16-e4m3fn", 320), ("dynamic8-g32", 96), ("nf4-row", 9 * 256), ("dynamic8-g64", 18 * 256)],
)
def test_rows_of_sums_of_16_bit_numbers(any_order, make, weight, k, dtype):
    q, _, bias, _ = make(weight, None, 37, 21, k, 1)
    x = torch.randn(37, k).to(dtype)
    for m in (9, 16, 37):
        assert check(any_order, q, x[:m], bias) == ("narrow", TERMS[dtype])
    assert any_order.route(any_order.prepare(q, None)[1], 257, dtype) == "multiply float32"


@pytest.mark.parametrize(
    ("values", "math"), [((1, 2.0**-25 / 3), "float16x2"), ((1, 2.0**-26 / 3), "float32"), ((2**15, 1 / 3), "float32")]
)
def test_ranges_of_sums_of_float16(shim, values, math):
    """So wide that the lesser term would lose bits; or beyond what leaves float16 room."""
    f = mf.Format.codebook(f"range_{int(1 / values[1])}_{int(values[0])}", np.float32(values))
    q = any_codes(mf.QuantSpec(f, "tensor"), (16, 64))
    assert check(shim, q, torch.randn(9, 64).half(), None)[1] == math


@pytest.mark.parametrize("k", [1, 31, 97, 257, 1031])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_odd_k(shim, make, k, dtype):
    for weight in ("e2m1-row", "int5-row"):
        q, _, bias, _ = make(weight, None, 3, 19, k, 0)
        check(shim, q, torch.randn(3, k).to(dtype), bias)


def test_long_k_in_either_order(any_order, make):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for weight in ("e2m1-g32", "int8-row", "uint4-g128-zp"):
            q, _, bias, _ = make(weight, None, 3, 16, 19 * 256, 1)
            check(any_order, q, torch.randn(3, 19 * 256).to(dtype), bias)


@pytest.mark.parametrize(
    "weight", ["binary-g32", "int1-row", "uint2-g32-zp", "int3-g64", "int7-g32-bf16", "e3m3-row", "uint8-g64-zp"]
)
def test_more_rounds_than_chunks_on_their_way(any_order, make, weight):
    q, _, bias, _ = make(weight, None, 2, 16, 42 * 256, 1)
    for dtype in (torch.float16, torch.bfloat16):
        assert check(any_order, q, torch.randn(2, 42 * 256).to(dtype), bias)[0] == "narrow"


def test_many_rows_and_long_k(any_order, make):
    for weight in ("int4-row", "e2m1-g32", "uint4-g512-zp"):
        q, _, bias, _ = make(weight, None, 20, 16, 10 * 256, 1)
        assert check(any_order, q, torch.randn(20, 10 * 256).half(), bias) == ("wide", "float16")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_cancelling_weights_leave_no_residue(shim, dtype):
    """A kernel that multiplied offset digits and corrected afterwards would miss the bound here."""
    x = torch.full((1, 64), 3e4, dtype=dtype)
    for weight in ("int4-row", "uint4-g32-zp", "int8-row"):
        y = shim.linear(x, *shim.prepare(mf.quantize(torch.zeros(16, 64), weight), None))[0]
        assert (y == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nan_stays_in_its_row(shim, make, dtype):
    x = torch.randn(3, 64, dtype=dtype)
    x[1, 5] = float("nan")
    q = make("int4-g32", None, 1, 8, 64, 0)[0]
    y = shim.linear(x, *shim.prepare(q, None))[0]
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_no_k_leaves_the_bias(shim, make, dtype):
    q, _, bias, _ = make("int4-row", None, 2, 17, 0, 0)
    y = shim.linear(torch.empty(2, 0, dtype=dtype), *shim.prepare(q, None), bias)[0]
    assert torch.equal(y, bias.to(dtype).expand(2, 17))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_dequantize(shim, make, weight):
    """What the route to a plain matrix product, and the backward pass, multiply with."""
    q = make(weight, None, 1, 19, 192, 2)[0]
    got = shim.dequantize(*shim.prepare(q, None))
    want = mf.emulator.dequantize(q)
    assert (np.abs(got.numpy() - want) <= 3 * 2.0**-24 * np.abs(want)).all()
