"""Products of single bits: linear_bits, on the CPU, equals the emulator where both sides need one or two bits."""

import numpy as np
import pytest
import torch

import minifloat as mf
from checks import any_codes

WEIGHTS = ("binary", "int1", "uint1", "ternary", "int2", "uint2", "e1m0", "ue1m1")
ACTIVATIONS = (
    "binary-row",
    "int1-row",
    "uint1-tensor",
    "ternary-row",
    "int2-row-bf16",
    "uint2-row",
    "e1m0-row",
    "int2-g128",
)
GRANULARITIES = ("row", "tensor", "g128", "g128-bf16", "row-e8m0", "g256")


def check(shim, same_bits, q, x, bias, activation, **options):
    options = {"prefer": "bits"} | options
    y, route, math = shim.linear(x, *shim.prepare(q, activation), bias, **options)
    assert (route, math) == ("bits", "int8")
    same_bits(y, mf.emulator.linear(x, q, bias, activation))


def weight_of_any_codes(make, spec, activation, m, n, k, seed=0):
    """As make, with every code of the weight in use: ternary's two zeros, int2's -2."""
    torch.manual_seed(seed)
    _, x, bias, activation = make(spec, activation, m, n, k, seed)
    return any_codes(mf.QuantSpec.parse(spec), (n, k)), x, bias, activation


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_formats(shim, same_bits, make, weight, activation):
    start = WEIGHTS.index(weight) + ACTIVATIONS.index(activation)
    spec = f"{weight}-{GRANULARITIES[start % len(GRANULARITIES)]}"
    check(shim, same_bits, *weight_of_any_codes(make, spec, activation, 3, 19, 512, start))


@pytest.mark.parametrize("k", [1, 7, 31, 130, 255, 257, 523])
def test_odd_k(shim, same_bits, make, k):
    """Padded places count for nothing, also where x's lowest integer is not 0 and code 0 is another digit."""
    for weight, activation in (("int2-row", "binary-row"), ("ternary-row", "ternary-row"), ("binary-row", "int1-row")):
        check(shim, same_bits, *weight_of_any_codes(make, weight, activation, 2, 18, k, k))


@pytest.mark.parametrize(
    ("weight", "activation", "k"),
    [
        ("int2-g96", "ternary-row", 480),  # folds padded from 96 to 128, an odd number of them
        ("ternary-g120", "binary-g120", 360),
        ("int2-g160", "binary-row", 800),  # folds of whole chunks
        ("uint2-g384", "int2-g768", 3072),
        ("int2-g512", "e1m0-g512", 1024),
        ("int2-g256", "int2-g256", 256),  # a single group
    ],
)
def test_group_sizes(shim, same_bits, make, weight, activation, k):
    check(shim, same_bits, *weight_of_any_codes(make, weight, activation, 3, 17, k, 1))


@pytest.mark.parametrize("weight", ["uint2-g128-zp", "int2-row-zp", "uint1-g256-bf16-zp"])
def test_zero_points_of_the_weight(shim, same_bits, make, weight):
    for activation in ("binary-row", "int2-g128"):
        check(shim, same_bits, *make(weight, activation, 5, 33, 512, 3))


def test_many_blocks_in_either_order(any_order, same_bits, make):
    """Several blocks of rows and outputs; a ring that goes round; K shared out over blocks, the padding in the last."""
    check(any_order, same_bits, *weight_of_any_codes(make, "int2-row", "ternary-row", 70, 70, 512))
    for weight, activation, k in (("ternary-row", "binary-row", 9 * 256 - 3), ("ternary-g256", "int2-g256", 5 * 256)):
        check(any_order, same_bits, *weight_of_any_codes(make, weight, activation, 3, 20, k))


@pytest.mark.parametrize("activation", ["binary-row", "int2-row", "ternary-g128"])
def test_largest_sums(shim, same_bits, activation):
    spec, k = mf.QuantSpec.parse("int2-row"), 2048
    codes = torch.tensor([2, 1], dtype=torch.uint8).repeat_interleave(8)[:, None].expand(16, k).contiguous()
    q = mf.QTensor(spec, (16, k), torch.ops.minifloat.pack(codes, 2), torch.ones(16, 1))
    x = torch.stack([torch.full((k,), 1.7), torch.full((k,), -1.7)])
    check(shim, same_bits, q, x, None, mf.QuantSpec.parse(activation))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(shim, same_bits, make, dtype):
    q, x, bias, spec = make("ternary-row", "int2-row", 6, 21, 256, 7, dtype)
    check(shim, same_bits, q, x, bias.to(dtype), spec)


def test_what_is_not_finite_makes_its_row_nan(shim, same_bits, make):
    q, x, bias, spec = make("int2-row", "binary-row", 4, 9, 256, 9)
    clean = mf.emulator.linear(x, q, bias, spec)
    x[2, 3] = float("inf")
    y = shim.linear(x, *shim.prepare(q, spec), bias, prefer="bits")[0]
    assert y[2].isnan().all()
    same_bits(y[[0, 1, 3]], clean[[0, 1, 3]])


@pytest.mark.parametrize(
    ("weight", "activation", "m", "capability", "prefer", "want"),
    [
        ("int2-row", "int2-row", 17, 80, "", "bits"),
        ("binary-g128", "ternary-row", 17, 80, "", "bits"),
        ("int2-row", "int2-row", 16, 80, "", "narrow"),  # the weight's bytes bound the time
        ("int2-row", "int2-row", 17, 86, "", "wide"),  # no rate is published
        ("int2-row", "int2-row", 17, 90, "", "warpgroup"),
        ("int2-row", "int2-row", 17, 80, "usual", "wide"),
        ("int2-row", "int2-row", 17, 90, "bits", "bits"),
        ("int2-row", "int3-row", 17, 80, "bits", "wide"),  # x of three bits
        ("int3-row", "int2-row", 17, 80, "bits", "wide"),
        ("ue2m0-row", "int2-row", 17, 80, "bits", "wide"),  # 0, 1, 2, 4
        ("int2-row", "uint2-row-zp", 17, 80, "bits", "wide"),
        ("int2-g64", "int2-row", 17, 80, "bits", "wide"),  # two folds in a product
        ("int2-row", "e2m3-row", 17, 80, "bits", "wide"),
    ],
)
def test_when_it_is_chosen(shim, same_bits, make, weight, activation, m, capability, prefer, want):
    q, x, bias, spec = make(weight, activation, m, 16, 256, 1)
    y, route, _ = shim.linear(x, *shim.prepare(q, spec), bias, capability, prefer=prefer)
    assert route == want
    same_bits(y, mf.emulator.linear(x, q, bias, spec))


def test_any_evenly_spaced_values_do(shim, same_bits, make):
    """What counts is the integers, not the format: four values of a codebook, 6 apart."""
    f = mf.Format.codebook("six_apart", np.array([-9.0, -3.0, 3.0, 9.0]))
    spec = mf.QuantSpec(f, "row")
    q = mf.quantize(torch.randn(20, 300), spec)
    check(shim, same_bits, q, torch.randn(5, 300), None, spec)
