"""The float contract: within the bound of docs/numerics.md, for any weight format."""

import pytest
import torch

import minifloat as mf
from checks import assert_within_float_bound

WEIGHTS = (
    *(
        "binary-row",
        "ternary-g16",
        "int1-row",
        "int3-row",
        "int4-g32",
        "uint4-g32-zp",
        "int5-row",
        "int7-tensor",
        "int8-row",
    ),
    *("e1m1-g32", "e2m1-g32-e8m0", "nvfp4", "e3m2-row-bf16", "e3m4-row", "e4m3fn-row", "e5m2-row", "e7m0-row"),
    *("nf4-g64", "dynamic8-row", "flint4-row"),
)
SHAPES = ((1, 17, 64), (2, 33, 192), (5, 16, 320), (31, 7, 64), (40, 50, 128), (0, 3, 64), (3, 0, 64))


def check(x, q, bias):
    assert_within_float_bound(mf.linear(x, q, bias), q, x, bias)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_within_the_bound(isa, weight):
    for i, (m, n, k) in enumerate(SHAPES):
        torch.manual_seed(i)
        q = mf.quantize(torch.randn(n, k), weight)
        check(torch.randn(m, k), q, torch.randn(n))
        check(torch.randn(m, k).bfloat16(), q, None)
        check(torch.randn(m, k).half(), q, None)


@pytest.mark.parametrize("k", [1, 31, 33, 97, 1025])
def test_odd_k(isa, k):
    q = mf.quantize(torch.randn(19, k), "e2m1-row")
    for m in (1, 3, 40):
        check(torch.randn(m, k), q, None)


def test_cancelling_weights_leave_no_residue(isa):
    """A kernel that multiplied offset digits and corrected afterwards would miss the bound here."""
    q = mf.quantize(torch.zeros(16, 64), "int4-row")
    assert (mf.linear(torch.full((1, 64), 1e30), q) == 0).all()


def test_nan_passes_through(isa):
    x = torch.randn(3, 64)
    x[1, 5] = float("nan")
    y = mf.linear(x, mf.quantize(torch.randn(8, 64), "int4-g32"))
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()
