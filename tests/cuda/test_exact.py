"""The exact contract: the CUDA kernels, run on the CPU, equal the emulator bit for bit."""

import pytest
import torch

import minifloat as mf

# One per number of bits and way of decoding; the second group are those whose integers take two digits.
ONE_DIGIT = (
    *("binary", "ternary", "int1", "int2", "uint3", "int3", "int4", "uint4", "e2m1", "e3m0", "flint4"),
    *("int5", "e2m2", "int6", "e2m3", "int7", "e2m4", "int8", "uint8", "e1m6"),
)
TWO_DIGITS = ("e3m1", "e3m2", "e3m3", "e2m5", "e3m4")
ACTIVATIONS = ("int8-row", "e2m1-g32-e8m0", "mxint8", "e2m3-row", "nvfp4", "int8-tensor", "e3m0-row", "int4-g64-bf16")
GRANULARITIES = ("row", "g32", "g16", "g64-e8m0", "g128", "tensor", "g16-e4m3fn", "row-bf16")
SHAPES = ((1, 17, 256), (2, 16, 384), (5, 40, 128), (9, 33, 512), (17, 20, 384))


def check(shim, same_bits, q, x, bias, activation):
    """Returns the kind of multiplication that was used."""
    y, _, math = shim.linear(x, *shim.prepare(q, activation), bias)
    same_bits(y, mf.emulator.linear(x, q, bias, activation))
    return math


@pytest.mark.parametrize("weight", ONE_DIGIT + TWO_DIGITS)
def test_formats(shim, same_bits, make, weight):
    """Each weight format meets every kind of activation, in granularities and shapes that vary with it."""
    start = (ONE_DIGIT + TWO_DIGITS).index(weight)
    for i, activation in enumerate(ACTIVATIONS):
        shape = SHAPES[(start + i) % len(SHAPES)]
        spec = f"{weight}-{GRANULARITIES[(3 * start + i) % len(GRANULARITIES)]}"
        math = check(shim, same_bits, *make(spec, activation, *shape, i))
        assert math == ("int16" if weight in TWO_DIGITS else "int8")


@pytest.mark.parametrize("activation", ["e3m2-row", "e3m4-g32", "uint8-row-zp", "int8-g32-zp"])
def test_activations_of_two_digits(shim, same_bits, make, activation):
    for i, weight in enumerate(("int4-g32", "e2m3-row", "int8-row", "e3m2-g16")):
        q, x, bias, spec = make(weight, activation, 3, 19, 256, i)
        assert check(shim, same_bits, q, x + 0.5, bias, spec) == "int16"


@pytest.mark.parametrize(
    "weight", ["uint4-g32-zp", "int4-row-zp", "int8-g64-bf16-zp", "uint2-tensor-zp", "uint8-g16-zp"]
)
@pytest.mark.parametrize("activation", ["int8-row", "e2m1-g32", "uint4-row-bf16-zp"])
def test_zero_points(shim, same_bits, make, weight, activation):
    q, x, bias, spec = make(weight, activation, 5, 33, 192, 3)
    check(shim, same_bits, q, x + 0.7, bias, spec)


@pytest.mark.parametrize("k", [1, 7, 31, 97, 255, 257, 1031])
@pytest.mark.parametrize("weight", ["e2m1-row", "int3-row", "int8-tensor", "e3m2-row"])
def test_odd_k(shim, same_bits, make, weight, k):
    check(shim, same_bits, *make(weight, "int8-row", 3, 18, k, k))


@pytest.mark.parametrize(
    ("weight", "activation", "k"),
    [
        ("int4-g24", "int8-g24", 120),  # folds padded from 24 to 32
        ("e2m1-g96", "int8-g32", 480),  # three folds to a weight's scale
        ("e2m1-g32", "int8-g96", 480),  # and to an activation's
        ("int3-g48", "int8-row", 336),  # folds padded from 48 to 64
        ("e2m1-g8", "int8-g24", 240),
        ("int5-g160", "int8-row", 800),  # folds of whole chunks
        ("e2m3-g512", "int8-g512", 2560),
        ("int6-g384", "int8-g768", 3072),
        ("int4-g256", "int8-g256", 256),  # a single group
    ],
)
def test_group_sizes(shim, same_bits, make, weight, activation, k):
    check(shim, same_bits, *make(weight, activation, 3, 17, k, 1))


def test_quotients_by_multiplication(shim):
    """Groups of slots, and folds of an activation's group: any number to a group."""
    for d in (*range(1, 200), *(2**i + j for i in range(8, 30) for j in (-1, 0, 1)), 2**30):
        assert shim.library.mf_wrong_quotient(d) == -1, d


def test_long_k_goes_round_the_warps(any_order, same_bits, make):
    """More chunks than warps: several rounds, the last one not full; with both orders of the threads."""
    for weight, activation in (("e2m1-g32", "e2m1-g32"), ("int8-row", "int8-row"), ("e3m2-g128", "int8-g64")):
        check(any_order, same_bits, *make(weight, activation, 4, 16, 19 * 256, 1))


@pytest.mark.parametrize("weight", ["int1-g16", "int1-row", "uint2-g32-zp", "int2-g512", "int3-g64", "int3-row"])
def test_few_bits_go_round_the_copies(any_order, same_bits, make, weight):
    """More rounds than chunks are on their way, the last one not full."""
    check(any_order, same_bits, *make(weight, "int8-row", 2, 16, 42 * 256, 1))


@pytest.mark.parametrize("m", [1, 2, 7, 8, 9, 16, 17, 64, 70])
@pytest.mark.parametrize(("weight", "activation"), [("int4-g16", "int8-g16"), ("e2m3-row", "int8-row")])
def test_any_number_of_rows(shim, same_bits, make, weight, activation, m):
    check(shim, same_bits, *make(weight, activation, m, 33, 512, m))


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("weight", "activation", "columns"),  # of 9, 12 and 16 rows, by capability
    [
        ("mxfp4", "mxfp4", {80: (9, 6, 8), 90: (9, 6, 8)}),
        ("nvfp4", "nvfp4", {80: (3, 4, 4), 90: (5, 4, 4)}),
        ("int4-g128", "int8-row", {80: (9, 12, 16), 90: (9, 12, 16)}),
        ("e3m2-g16", "int8-g16", {80: (3, 3, 3), 90: (3, 4, 4)}),
    ],
)
def test_groups_stay_narrow_to_16_rows(shim, same_bits, make, weight, activation, columns, capability):
    """In blocks of even size: a panel of 16 outputs is a block or a few, not a quarter or an eighth of one."""
    for m, want in zip((9, 12, 16), columns[capability], strict=True):
        q, x, bias, spec = make(weight, activation, m, 33, 512, m)
        layout, plan = shim.prepare(q, spec)
        y, route, _ = shim.linear(x, layout, plan, bias, capability)
        assert (route, shim.columns(plan, m, x.dtype, capability)) == ("narrow", want)
        same_bits(y, mf.emulator.linear(x, q, bias, spec))


@pytest.mark.parametrize("weight", ONE_DIGIT)
def test_formats_with_many_rows(shim, same_bits, make, weight):
    start = ONE_DIGIT.index(weight)
    activation, granularity = ACTIVATIONS[start % len(ACTIVATIONS)], GRANULARITIES[start % len(GRANULARITIES)]
    q, x, bias, spec = make(f"{weight}-{granularity}", activation, 19, 70, 384, 1)
    y, route, _ = shim.linear(x, *shim.prepare(q, spec), bias)
    assert route == "wide"
    same_bits(y, mf.emulator.linear(x, q, bias, spec))


def test_many_rows_and_zero_points(shim, same_bits, make):
    for weight in ("uint4-g32-zp", "int8-g64-bf16-zp", "uint8-g16-zp", "int4-row-zp"):
        q, x, bias, spec = make(weight, "int8-g32", 19, 33, 192, 3)
        check(shim, same_bits, q, x + 0.7, bias, spec)


def test_many_rows_and_long_k(any_order, same_bits, make):
    """A row's K in parts, whose integer sums are added at the end; and group by group, in order."""
    check(any_order, same_bits, *make("int4-row", "int8-row", 20, 16, 9 * 256, 1))
    check(any_order, same_bits, *make("e2m1-g512", "e2m1-g32", 20, 16, 6 * 256, 1))


def test_rows_do_not_depend_on_their_batch(shim, same_bits, make):
    q, x, bias, spec = make("e2m3-g32-e8m0", "int8-row", 37, 50, 256, 5)
    prepared = shim.prepare(q, spec)
    whole = shim.linear(x, *prepared, bias)[0]
    for m in range(0, 37, 6):
        same_bits(shim.linear(x[m : m + 1], *prepared, bias)[0], whole[m : m + 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(shim, same_bits, make, dtype):
    for weight, activation in (("int4-g32", "int8-row"), ("nvfp4", "nvfp4")):
        q, x, bias, spec = make(weight, activation, 6, 21, 96, 7, dtype)
        check(shim, same_bits, q, x, bias.to(dtype), spec)


@pytest.mark.parametrize("weight", ONE_DIGIT + TWO_DIGITS)
def test_extreme_codes(shim, same_bits, weight):
    """All weights at one end of the range against all activations at one end: the largest sums there are."""
    f = mf.Format.parse(weight)
    codes = f.encode(torch.tensor([f.max, f.min], dtype=torch.float32)).repeat_interleave(8)[:, None]
    spec, k = mf.QuantSpec.parse(f"{weight}-row"), 1024
    q = mf.QTensor(spec, (16, k), torch.ops.minifloat.pack(codes.expand(16, k).contiguous(), f.bits), torch.ones(16, 1))
    x = torch.stack([torch.full((k,), 1.7), torch.full((k,), -1.7), torch.full((k,), -1.0)])
    x[2, 0] = 1.5
    for activation in ("int8-row", "int8-row-bf16", "e2m3-row"):
        check(shim, same_bits, q, x, None, mf.QuantSpec.parse(activation))


def test_extreme_scales(shim, same_bits, make):
    for factor in (1e-37, 1e30):
        for activation in ("int8-row", "mxfp4", "nvfp4"):
            for weight in ("e2m1-g32", "e2m1-g32-bf16", "mxfp6-e3m2"):
                q, x, _, spec = make(weight, activation, 3, 20, 64, 1)
                q = mf.quantize(q.dequantize() * factor, weight)
                for scale in (1e-37, 1e37):
                    check(shim, same_bits, q, x * scale, None, spec)


def test_what_is_not_finite_makes_its_row_nan(shim, same_bits, make):
    """The op on a CPU raises here; a GPU would have to be waited for."""
    q, x, bias, spec = make("int4-row", "int8-row", 4, 9, 64, 9)
    clean = mf.emulator.linear(x, q, bias, spec)
    for value in (float("nan"), float("inf"), -float("inf")):
        for activation in ("int8-row", "int8-g32", "uint8-row-zp", "e3m2-g32"):
            x[2, 3] = value
            y = shim.linear(x, *shim.prepare(q, mf.QuantSpec.parse(activation)), bias)[0]
            assert y[2].isnan().all() and y[[0, 1, 3]].isfinite().all()
            if activation == "int8-row":
                same_bits(y[[0, 1, 3]], clean[[0, 1, 3]])


@pytest.mark.parametrize("shape", [(3, 17, 0), (1, 1, 1), (2, 1, 5)])
def test_small_shapes(shim, same_bits, make, shape):
    for activation in ("int8-row", "int8-g32") if shape[2] == 0 else ("int8-row",):
        check(shim, same_bits, *make("int4-row", activation, *shape, 1))


@pytest.mark.parametrize(
    ("weight", "activation", "words"),
    [
        ("e4m3fn-row", "e4m3fn-row", "need more than 32 bits"),
        ("e5m2-row", "int8-row", "need more than 32 bits"),
    ],
)
def test_refused(shim, make, weight, activation, words):
    q, _, _, spec = make(weight, activation, 1, 16, 64, 0)
    assert words in shim.unsupported(shim.prepare(q, spec)[1])
    q, _, _, spec = make("e3m4-row", "int8-row", 1, 16, 64, 0)
    assert shim.unsupported(shim.prepare(q, spec)[1]) == ""
