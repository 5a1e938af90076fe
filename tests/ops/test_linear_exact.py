"""The exact contract: kernels equal the emulator bit for bit."""

import itertools
import zlib

import pytest
import torch

import minifloat as mf

FORMATS = (
    *("binary", "ternary", "int1", "int2", "int3", "int4", "int5", "int6", "int7", "int8", "uint4", "uint8"),
    *("e1m0", "e2m0", "e3m0", "e1m1", "e2m1", "e1m3", "e2m2", "e3m1", "e2m3", "e3m2", "e3m3", "e2m4", "e2m5", "e3m4"),
    *("e1m6", "e4m1", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e7m0", "ue4m4", "nf4", "dynamic8", "flint4"),
)
GRANULARITIES = ("tensor", "row", "g8", "g16", "g24", "g32", "g64-bf16", "g32-e8m0", "g16-e4m3fn", "row-bf16")
SHAPES = (
    *((0, 5, 32), (3, 0, 32), (2, 3, 0), (1, 1, 1), (1, 17, 31), (2, 16, 32), (3, 15, 33), (4, 33, 97)),
    *((5, 7, 192), (7, 48, 64), (1, 40, 256), (17, 31, 192), (2, 19, 384)),
)


def make(weight, activation, m, n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=generator) * torch.rand(n, 1, generator=generator)
    x = torch.randn(m, k, generator=generator) * torch.exp(2 * torch.randn(m, 1, generator=generator))
    return mf.quantize(w, weight), x, torch.randn(n, generator=generator), activation


def check(q, x, bias, activation):
    got, want = mf.linear(x, q, bias, activation), mf.emulator.linear(x, q, bias, activation)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert torch.equal(got.nan_to_num(nan=12345.0), want.nan_to_num(nan=12345.0))


def fits(spec, k):
    return not spec.group_size or k % spec.group_size == 0 and (k >= spec.group_size or k == 0)


@pytest.mark.parametrize("weight", FORMATS)
def test_one_row_and_many_outputs(isa, weight):
    """One row reads several panels of 16 outputs side by side, then what is left of them one by one."""
    for i, (n, k) in enumerate(((83, 96), (64, 48), (200, 192))):
        for w, a in (
            ("row", "int8-row"),
            ("g32", "int8-row"),
            ("g32-e8m0", "int8-row"),
            ("g32-e8m0", "int8-g32"),
            ("g16-bf16", "int8-row"),
            ("g16", "int8-g16"),
            ("g24", "int7-row"),
        ):
            if k % int(w.split("-")[0].removeprefix("g") if w[0] == "g" else 1) == 0:
                check(*make(f"{weight}-{w}", a, 1, n, k, i))


@pytest.mark.parametrize("weight", ["int3-g16-zp", "uint4-g32-zp", "int8-g48-zp"])
def test_one_row_and_many_outputs_with_zero_points(isa, weight):
    check(*make(weight, "int8-row", 1, 83, 96, 3))


@pytest.mark.parametrize("activation", ["int8-row", "int8-tensor", "int5-row", "mxint8"])
@pytest.mark.parametrize("k", [32, 64, 800])
def test_activations_halfway_between_two_integers(isa, activation, k):
    """They go to the even one, their neighbours to the nearer. Half the rows have scales that do not divide exactly."""
    top = 15 if activation == "int5-row" else 127
    generator = torch.Generator().manual_seed(12)
    halves = torch.randint(-top, top, (6, k), generator=generator) + 0.5
    x = torch.stack([halves, torch.nextafter(halves, halves + 1), torch.nextafter(halves, halves - 1)]).reshape(18, k)
    x[:, ::32] = top
    x = torch.cat([x, x * torch.rand(18, 1, generator=generator)])
    q = mf.quantize(torch.randn(17, k, generator=generator), "int6-row")
    check(q, x, None, activation)


@pytest.mark.parametrize("weight", FORMATS)
def test_every_pair_of_formats(isa, weight):
    """Each pair meets several granularities and shapes, picked by a hash of its names so that all meet somewhere."""
    for activation in FORMATS:
        seed = zlib.crc32(f"{weight} {activation}".encode())
        checked = 0
        for i in itertools.count():
            w_spec = mf.QuantSpec.parse(f"{weight}-{GRANULARITIES[(seed + i) % len(GRANULARITIES)]}")
            a_spec = mf.QuantSpec.parse(f"{activation}-{GRANULARITIES[(seed // 16 + 3 * i) % len(GRANULARITIES)]}")
            m, n, k = SHAPES[(seed // 256 + i) % len(SHAPES)]
            if fits(w_spec, k) and fits(a_spec, k):
                check(*make(w_spec, a_spec, m, n, k, seed + i))
                checked += 1
            if checked == 4:
                break


@pytest.mark.parametrize("shape", [*SHAPES, (65, 70, 160), (1, 4099, 64), (33, 128, 1025)])
@pytest.mark.parametrize("threads", [1, 2])
def test_shapes_and_threads(isa, shape, threads):
    m, n, k = shape
    torch.set_num_threads(threads)
    for weight, activation in (("e2m1-row", "int8-row"), ("int8-row", "int8-row"), ("e3m2-row", "e4m3fn-tensor")):
        check(*make(weight, activation, m, n, k, 1))


@pytest.mark.parametrize("activation", ["uint8-row-zp", "int8-g32-zp", "int4-row-bf16-zp", "int8-tensor-zp"])
@pytest.mark.parametrize(
    "weight", ["uint4-g32-zp", "int4-row-zp", "int8-g64-bf16-zp", "uint2-tensor-zp", "e5m2-row", "e7m0-row"]
)
def test_zero_points(isa, weight, activation):
    for i, (m, n, k) in enumerate([(1, 17, 64), (5, 33, 192)]):
        q, x, bias, _ = make(weight, activation, m, n, k, i)
        check(q, x + 0.7, bias, activation)


@pytest.mark.parametrize(
    "activation", ["int8-row", "int8-row-bf16", "mxint8", "e2m1-row", "uint8-row", "e3m4-row", "e5m2-row"]
)
@pytest.mark.parametrize("weight", FORMATS)
def test_extreme_codes_do_not_overflow(isa, weight, activation):
    """All weights at one end of the range against all activations at one end: the largest sums there are."""
    f = mf.Format.parse(weight)
    ends = [int(f.encode(torch.tensor([v]))[0]) for v in (f.max, f.min)]
    k = 1024
    codes = torch.tensor(ends, dtype=torch.uint8).repeat_interleave(8)[:, None].expand(16, k).contiguous()
    spec = mf.QuantSpec.parse(f"{weight}-row")
    q = mf.QTensor(spec, (16, k), torch.ops.minifloat.pack(codes, f.bits), torch.ones(16, 1))
    x = torch.stack([torch.full((k,), 1.7), torch.full((k,), -1.7), torch.full((k,), -1.0)])
    x[2, 0] = 1.5  # absmax at one element, so that others land between
    for rows in (3, 17):  # decoded in registers, and once for several tiles of rows
        check(q, x.repeat(6, 1)[:rows], None, activation)


@pytest.mark.parametrize("weight", ["e4m3fn-row", "e4m1-row", "int8-row", "e2m1-row", "e2m3-row"])
def test_sums_longer_than_an_integer_holds(isa, weight):
    """K beyond what an int32 sum of the largest products takes, where the kernel keeps one for some digits only."""
    spec = mf.QuantSpec.parse(weight)
    top = torch.from_numpy(spec.format.encode(torch.tensor([spec.format.max]).numpy()))
    k = 24000
    codes = top.expand(3, k).contiguous()
    q = mf.QTensor(spec, (3, k), torch.ops.minifloat.pack(codes, spec.format.bits), torch.ones(3, 1))
    for rows in (1, 5):
        check(q, torch.full((rows, k), 1.7), None, "int8-row")


def test_a_grid_wider_than_int64(isa):
    check(*make("e6m0-row", "int8-row", 3, 17, 96, 4))


def test_rows_do_not_depend_on_their_batch(isa):
    q, x, bias, activation = make("e2m3-g32-e8m0", "int8-row", 37, 50, 256, 5)
    whole = mf.linear(x, q, bias, activation)
    for m in range(37):
        assert torch.equal(mf.linear(x[m], q, bias, activation), whole[m])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_and_output(isa, dtype):
    q, x, bias, activation = make("int4-g32", "int8-row", 6, 21, 96, 7)
    check(q, x.to(dtype), bias.to(dtype), activation)


def test_any_strides_and_leading_dimensions(isa):
    q, x, bias, activation = make("int4-g32", "int8-row", 24, 21, 96, 8)
    want = mf.linear(x, q, bias, activation)
    assert torch.equal(mf.linear(x.reshape(2, 3, 4, 96), q, bias, activation), want.reshape(2, 3, 4, 21))
    strided = torch.empty(96, 24).t().copy_(x)
    assert not strided.is_contiguous() and torch.equal(mf.linear(strided, q, bias, activation), want)
    assert mf.linear(x[0], q, bias, activation).shape == (21,)
    assert mf.linear(x[:0].reshape(0, 5, 96), q).shape == (0, 5, 21)


def test_extreme_scales(isa):
    """Scales near the ends of float32: the contract is stated on values, so nothing under- or overflows on the way."""
    for factor in (1e-37, 1e-30, 1e30):
        w = torch.randn(20, 64) * factor
        for activation in ("int8-row", "e5m2-g32", "mxfp4"):
            for weight in ("e2m1-g32", "e5m2-row", "e2m1-g32-bf16", "e4m3fn-row"):
                for scale in (1e-37, 1.0, 1e37):
                    check(mf.quantize(w, weight), torch.randn(3, 64) * scale, None, activation)


@pytest.mark.parametrize("weight", ["e2m1-row", "e2m2-g16", "e2m3-row", "e1m4-row"])
def test_scales_that_the_grid_makes_subnormal(isa, weight):
    """Just above 2**-126: times the format's smallest step they lose bits: not what to multiply first."""
    w = torch.randn(20, 96, generator=torch.Generator().manual_seed(1))
    w *= torch.linspace(1, 9, 20)[:, None] * mf.QuantSpec.parse(weight).format.max * 2.0**-126 / w.abs().amax(1, True)
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(2)) * 2.0**100
    for m in (1, 5):
        check(mf.quantize(w, weight), x[:m], None, "int8-row")


def test_the_smallest_power_of_two(isa):
    """2**-127 is subnormal. Quantizing here makes no such scale, but a file may hold one."""
    q, x, bias, _ = make("e2m1-g32-e8m0", None, 3, 20, 96, 6)
    q.scale_data.view(torch.uint8)[::2] = 0
    check(q, x * 2.0**100, bias * 2.0**-20, "int8-row")


def test_nan_activations(isa):
    q, x, bias, _ = make("int4-row", None, 4, 9, 32, 9)
    x[2, 3] = float("nan")
    with pytest.raises(ValueError, match="x holds nan at row 2, column 3"):
        mf.linear(x, q, bias, "int8-row")
    x[2, 3] = float("inf")
    with pytest.raises(ValueError, match="x holds inf at row 2, column 3"):
        mf.linear(x, q, bias, "int8-g32")
    for activation in ("uint8-row-zp", "int8-g32-zp", "int8-tensor-zp"):
        with pytest.raises(ValueError, match="x holds inf at row 2, column 3"):
            mf.linear(x, q, bias, activation)
    y = mf.linear(x, q, bias, "e4m3fn-row")
    assert y[2].isnan().all() and not y[[0, 1, 3]].isnan().any()
    check(q, x, bias, "e4m3fn-row")
