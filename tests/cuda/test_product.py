"""Very many rows of 16-bit x without wgmma: weights decoded to memory, a plain product, then scales.

The product, cuBLAS on a GPU, is a loop of the shim here.
"""

import pytest
import torch

import minifloat as mf
from checks import any_codes, assert_within_float_bound

WEIGHTS = (
    *(
        "binary-row",
        "ternary-tensor",
        "int2-row",
        "uint3-row-zp",
        "int4-row-bf16",
        "uint4-row-zp",
        "e2m1-row",
        "e2m1-tensor",
    ),
    *("int5-row", "e2m2-row", "uint6-tensor-zp", "e3m2-row", "int7-row", "e2m4-row-e8m0", "int8-row", "uint8-row-zp"),
    *("e4m3fn-row", "e5m2-row", "flint4-row", "ue4m4-row", "int8-g256"),
)


def check(shim, q, x, bias, prefer="product", want="product", **options):
    y, route, _ = shim.linear(x, *shim.prepare(q, None), bias, prefer=prefer, **options)
    assert route == want
    assert_within_float_bound(y, q, x, bias)
    return y


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_formats(shim, make, weight, dtype):
    """A group of all of K is one scale too. Outputs that do not fill a panel, more chunks than a block takes."""
    torch.manual_seed(WEIGHTS.index(weight))
    for n, k in ((17, 256),) if "g256" in weight else ((17, 256), (33, 9 * 256)):
        bias = make(weight, None, 1, n, k, 0)[2]
        check(shim, any_codes(mf.QuantSpec.parse(weight), (n, k)), torch.randn(3, k).to(dtype), bias)


@pytest.mark.parametrize("k", [1, 31, 257, 523])
def test_odd_k(shim, make, k):
    """x is copied to whole chunks, with zeros where the weights' padding is not."""
    for weight in ("int4-row", "e2m1-row", "uint3-row-zp"):
        q, _, bias, _ = make(weight, None, 1, 19, k, 0)
        check(shim, q, torch.randn(2, k).half(), bias)


def test_nan_stays_in_its_row(shim, make):
    q = make("int4-row", None, 1, 8, 64, 0)[0]
    x = torch.randn(3, 64).half()
    x[1, 5] = float("nan")
    y, route, _ = shim.linear(x, *shim.prepare(q, None), prefer="product")
    assert route == "product" and y[1].isnan().all() and y[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("weight", "dtype", "m", "capability", "prefer", "want"),
    [
        ("int4-row", torch.float16, 2048, 80, "", "product"),
        ("e2m1-tensor", torch.bfloat16, 2048, 100, "", "product"),
        ("int4-row", torch.float16, 2047, 80, "", "wide"),
        ("int4-row", torch.float16, 2048, 80, "usual", "wide"),
        ("int4-row", torch.float16, 2048, 90, "", "warpgroup"),
        ("int4-g32", torch.float16, 2048, 80, "", "wide"),  # a scale for each group of K
        ("int4-g32", torch.float16, 64, 80, "product", "wide"),
        ("int4-row", torch.float16, 64, 90, "product", "product"),
        ("int4-row", torch.float32, 2, 80, "product", "lanes"),
        ("nf4-row", torch.float16, 2, 80, "product", "lanes"),  # values that 16 bits do not hold
    ],
)
def test_when_it_is_chosen(shim, make, weight, dtype, m, capability, prefer, want):
    q = make(weight, None, 1, 4, 64, 1)[0]
    check(shim, q, torch.randn(m, 64).to(dtype), None, prefer, want, capability=capability)
