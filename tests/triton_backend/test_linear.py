"""Every linear kernel against the emulator: on a GPU, or interpreted (test_interpreter.py runs this file that way)."""

import itertools

import pytest
import torch

import minifloat as mf
from minifloat.binary_coding import binary_code
from triton_backend.device import DEVICE, to_device

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, of overflow
FORMATS = (
    *("binary", "ternary", "int1", "int2", "int3", "int4", "int5", "int6", "int7", "int8", "uint4", "uint8"),
    *("e1m0", "e2m0", "e3m0", "e1m1", "e2m1", "e1m3", "e3m1", "e2m3", "e3m2", "e3m3", "e2m4", "e2m5", "e3m4", "e4m1"),
    *("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e7m0", "ue4m4", "nf4", "dynamic8", "flint4"),
)
GRANULARITIES = (
    *(
        "tensor",
        "row",
        "g8",
        "g16",
        "g24",
        "g32",
        "g64-bf16",
        "g32-e8m0",
        "g16-e4m3fn",
        "row-bf16",
        "g96",
        "g128",
        "g256",
    ),
)
ACTIVATIONS = (
    *("int8-row", "mxint8", "int8-g16", "e2m1-g32-e8m0", "nvfp4", "e2m3-row-bf16", "int4-tensor", "e3m2-g24"),
    "uint8-row",
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
SHAPES = (
    *((1, 37, 97), (2, 17, 31), (3, 41, 192), (5, 7, 192), (7, 67, 384), (19, 13, 256), (1, 1, 1)),
    *((5, 37, 97), (17, 67, 131), (3, 13, 512), (2, 11, 512)),
)
CASES = 3  # of each format


def fits(spec, k):
    return not spec.group_size or (k % spec.group_size == 0 and k >= spec.group_size)


def cases(name, exact=False):
    """CASES tuples of a number, a shape, a weight spec, an activation spec or None, and a type of x.

    Numbers run on from format to format. Granularities go round by them, types and activations go on by one with each
    round, and the shape is the next one that fits.
    """
    first = FORMATS.index(name) * CASES
    for i in range(first, first + CASES):
        turn = i // len(GRANULARITIES)
        weight = mf.QuantSpec.parse(f"{name}-{GRANULARITIES[i % len(GRANULARITIES)]}")
        for j in itertools.count():
            shape = SHAPES[(i + j // len(ACTIVATIONS)) % len(SHAPES)]
            spec = ACTIVATIONS[(i + turn + j) % len(ACTIVATIONS)]
            activation = mf.QuantSpec.parse(spec) if exact else None
            if fits(weight, shape[2]) and (not exact or fits(activation, shape[2])):
                yield i, shape, weight, activation, DTYPES[turn % 3]
                break


def test_cases_meet():
    """Each granularity meets each type of x, both contracts, and each kernel; each activation and shape occurs."""
    for exact in (False, True):
        found = [case for name in FORMATS for case in cases(name, exact)]
        wanted = {(i % len(GRANULARITIES), dtype) for i in range(len(GRANULARITIES)) for dtype in DTYPES}
        assert {(i % len(GRANULARITIES), dtype) for i, *_, dtype in found} == wanted
        assert {shape for _, shape, *_ in found} == set(SHAPES)
        assert {f"{w.group_size}" for _, _, w, *_ in found} >= {"None", "8", "16", "24", "32", "64", "96", "128", "256"}
        if exact:
            assert {a for *_, a, _ in found} == set(map(mf.QuantSpec.parse, ACTIVATIONS))
            multiplied = [i % len(GRANULARITIES) for i, s, w, a, _ in found if carrier(w, a, s[2])[:3] == "int"]
            assert set(multiplied) == set(range(len(GRANULARITIES)))
        else:
            kernels = {(i % len(GRANULARITIES), shape[0] > 2) for i, shape, *_ in found}
            assert {g for g, many in kernels if many} == set(range(len(GRANULARITIES)))
            assert len({g for g, many in kernels if not many}) > len(GRANULARITIES) / 2
            assert {97, 131} <= {shape[2] for _, shape, *_ in found if shape[0] > 2}


def operands(weight, m, n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=generator) * torch.rand(n, 1, generator=generator)
    x = torch.randn(m, k, generator=generator) * torch.exp(2 * torch.randn(m, 1, generator=generator))
    return mf.quantize(w, weight), x, torch.randn(n, generator=generator)


def run(x, q, bias=None, activation=None):
    """mf.linear on this backend, its result on the CPU."""
    there = None if bias is None else bias.to(DEVICE)
    return mf.linear(x.to(DEVICE), to_device(q), there, activation, backend="triton").cpu()


def check_float(x, q, bias=None):
    y = run(x, q, bias)
    out = torch.bfloat16 if x.dtype in FLOAT8 else x.dtype
    assert y.dtype == out and y.shape == (*x.shape[:-1], q.shape[0])
    real = x.double() @ torch.from_numpy(mf.emulator.dequantize(q)).T + (0 if bias is None else bias.double())
    bound = torch.from_numpy(mf.emulator.float_bound(x, q, bias))
    if out != torch.float32:  # one more rounding, to the output type
        info = torch.finfo(out)
        bound = bound + info.eps / 2 * (real.abs() + bound) + info.smallest_normal * info.eps
    assert ((y.double() - real).abs() <= bound).all()


def check_exact(x, q, bias, activation):
    got, want = run(x, q, bias, activation), mf.emulator.linear(x, q, bias, activation)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert torch.equal(got.nan_to_num(nan=12345.0), want.nan_to_num(nan=12345.0))


def carrier(weight, activation, k):
    lengths = [s.group_size or k for s in (weight, activation)]
    return mf.plan.Plan(weight, activation).carrier(torch.tensor(lengths).gcd(torch.tensor(lengths[::-1]))[0].item())


@pytest.mark.parametrize("name", FORMATS)
def test_float_within_the_bound(name):
    for i, (m, n, k), spec, _, dtype in cases(name):
        q, x, bias = operands(spec, m, n, k, i)
        check_float((x / x.abs().max()).to(dtype), q, bias)


def test_values_beyond_float32_sums_are_refused():
    q = mf.quantize(torch.rand(3, 32) + 0.5, "e8m0fnu-row")
    with pytest.raises(ValueError, match=r"sums values before they are scaled"):
        run(torch.randn(2, 32), q)


@pytest.mark.parametrize("name", FORMATS)
def test_exact_equals_the_emulator(name):
    """Every granularity and kind of scale meets somewhere; what needs more than two int8 digits is refused."""
    for i, (m, n, k), spec, activation, dtype in cases(name, exact=True):
        q, x, bias = operands(spec, m, n, k, i)
        x, bias = x.to(dtype), bias.to(dtype)
        kind = carrier(spec, activation, k)
        if kind in ("int8", "int16"):
            check_exact(x, q, bias, activation)
        else:
            with pytest.raises(ValueError, match=f"need the {kind} carrier"):
                run(x, q, bias, activation)


@pytest.mark.parametrize("activation", [None, "uint8-row-zp", "int8-g32-zp", "int4-row-bf16-zp", "int8-tensor-zp"])
@pytest.mark.parametrize("weight", ["uint4-g32-zp", "int4-row-zp", "int8-g64-bf16-zp", "uint2-tensor-zp"])
def test_zero_points(weight, activation):
    k = 192
    q, x, bias = operands(mf.QuantSpec.parse(weight), 3, 17, k, 1)
    if activation is None:
        check_float(x[:1], q, bias)
        check_float(x.half(), q, bias)
    else:
        check_exact(x + 0.7, q, bias, mf.QuantSpec.parse(activation))


@pytest.mark.parametrize("activation", ["int8-row", "int8-row-bf16", "mxint8", "uint8-row", "e2m3-row", "e3m4-row"])
@pytest.mark.parametrize("weight", ["int8", "uint8", "e3m4", "e2m1", "int3"])
def test_extreme_codes_do_not_overflow(weight, activation):
    """All weights at one end of the range against all activations at one end: the largest sums there are."""
    f = mf.Format.parse(weight)
    ends = [int(f.encode(torch.tensor([v]))[0]) for v in (f.max, f.min)]
    k = 512
    codes = torch.tensor(ends, dtype=torch.uint8).repeat_interleave(3)[:, None].expand(6, k).contiguous()
    q = mf.QTensor(f"{weight}-row", (6, k), torch.ops.minifloat.pack(codes, f.bits), torch.ones(6, 1))
    x = torch.stack([torch.full((k,), 1.7), torch.full((k,), -1.7), torch.full((k,), -1.0)])
    x[2, 0] = 1.5  # absmax at one element, so that others land between
    check_exact(x, q, None, mf.QuantSpec.parse(activation))


@pytest.mark.parametrize("activation", [None, "int8-row", "int8-g32"])
def test_split_k(monkeypatch, activation):
    """K in several parts, summed in a second pass: every config gives the same bits where the contract is exact."""
    from minifloat.kernels.triton import configs

    kernels = ("gemm_exact",) if activation else ("gemv_float", "gemm_float")
    for kernel in kernels:
        m = 1 if kernel == "gemv_float" else 3
        q, x, bias = operands(mf.QuantSpec.parse("e2m1-g32-e8m0"), m, 7, 544, 3)
        everything = configs.CONFIGS[kernel]
        if DEVICE == "cpu":  # warps and stages mean nothing there, and tiles little
            everything = {(c.split, c.unroll): c for c in everything}.values()
        for config in everything:
            monkeypatch.setattr(configs, "choose", lambda *_, config=config: config)
            if activation:
                check_exact(x, q, bias, mf.QuantSpec.parse(activation))
            else:
                check_float(x, q, bias)


@pytest.mark.parametrize(
    ("weight", "activation", "m", "k", "split", "unroll"),
    [
        ("int4-row", "int8-row", 37, 2609, 8, 8),  # one fold: its parts are added before it is scaled
        ("e3m2-row", "e3m2-row", 3, 2609, 4, 2),  # the same with two digits on both sides
        ("e3m2-g16-bf16", "int8-g16", 3, 784, 4, 8),  # several folds in 32 k's
        ("uint4-g16-zp", "uint8-row-zp", 3, 784, 4, 2),
        ("int4-row", None, 37, 2609, 4, 2),
    ],
)
def test_split_of_many_blocks(monkeypatch, weight, activation, m, k, split, unroll):
    """Parts of one to three blocks of 256, the last one short or empty; 37 rows are three tiles."""
    from minifloat.kernels.triton import configs

    monkeypatch.setattr(configs, "choose", lambda *_: configs.Config(16, 16, split, 4, 1, unroll))
    q, x, bias = operands(mf.QuantSpec.parse(weight), m, 13, k, split)
    if activation:
        check_exact(x, q, bias, mf.QuantSpec.parse(activation))
    else:
        check_float(x, q, bias)


@pytest.mark.parametrize("unroll", [1, 4])
def test_short_trips(monkeypatch, unroll):
    """Folds and groups that end in every trip of the loop, in some of them, at the same turns or not."""
    from minifloat.kernels.triton import configs

    pairs = [
        *(("int4-row", "int8-row"), ("e2m1-g32-e8m0", "mxint8"), ("uint8-g64-zp", "int8-g128")),
        *(("nvfp4", "int8-row"), ("e3m2-g24", "int8-g24"), ("uint4-g96-zp", "int8-row"), ("int8-g384", "e2m3-row")),
    ]
    for i, (weight, activation) in enumerate(pairs):
        config = configs.Config(16, 16, 4 if i == 2 else 1, 4, 1, unroll)
        monkeypatch.setattr(configs, "choose", lambda *_, config=config: config)
        q, x, bias = operands(mf.QuantSpec.parse(weight), 3, 13, 384 if i < 6 else 768, i)
        check_exact(x, q, bias, mf.QuantSpec.parse(activation))
        check_float((x / x.abs().max()).to(DTYPES[(i + unroll) % 3]), q, bias)


@pytest.mark.parametrize("k", [255, 257, 521])
def test_odd_k(k):
    q, x, bias = operands(mf.QuantSpec.parse("int4-row"), 3, 13, k, 4)
    check_float(x[:1], q, bias)
    check_float(x, q, bias)
    check_exact(x, q, bias, mf.QuantSpec.parse("int8-row"))


def test_infinity_stays_in_its_row_and_group():
    """0 * infinity is NaN: what pads a chunk or masks a group must not meet it."""
    q = mf.quantize(torch.rand(5, 80) + 0.5, "int4-g16")
    for m in (1, 4):
        x = torch.randn(m, 80)
        x[0, 20] = float("inf")
        y = run(x, q)
        assert (y[0] == float("inf")).all() and y[1:].isfinite().all()


def test_nan_activations():
    q, x, bias = operands(mf.QuantSpec.parse("int4-row"), 4, 9, 32, 9)
    x[2, 3] = float("nan")
    y = run(x, q, bias)
    assert y[2].isnan().all() and not y[[0, 1, 3]].isnan().any()
    for spec in ("e4m3fn-row", "e5m2-row"):
        with pytest.raises(ValueError, match="need the"):
            run(x, mf.quantize(torch.randn(9, 32), "e4m3fn-row"), bias, spec)
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match="x holds nan at row 2, column 3"):
            run(x, q, bias, "int8-row")
    else:  # looking for it would wait for the device at every call
        y = run(x, q, bias, "int8-row")
        assert y[2].isnan().all() and not y[[0, 1, 3]].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_and_output(dtype):
    q, x, bias = operands(mf.QuantSpec.parse("int4-g32"), 5, 21, 96, 7)
    check_exact(x.to(dtype), q, bias.to(dtype), mf.QuantSpec.parse("int8-row"))


@pytest.mark.parametrize("dtype", FLOAT8)
@pytest.mark.parametrize("weight", ["e2m1-g32", "nvfp4", "int4-row", "nf4-g64"])
def test_float8_activations(weight, dtype):
    """Widened to bfloat16, which is exact, where weights are not what block-scaled tensor cores take; so is y."""
    q, x, bias = operands(mf.QuantSpec.parse(weight), 4, 21, 192, 7)
    x = (x / x.abs().max()).to(dtype)
    for rows in (x, x[0]):
        check_float(rows, q, bias)
        assert torch.equal(run(rows, q, bias), run(rows.bfloat16(), q, bias))
    empty = run(x[:0], q, bias)
    assert (empty.shape, empty.dtype) == ((0, 21), torch.bfloat16)


@pytest.mark.parametrize("dtype", FLOAT8)
def test_float8_is_widened_before_it_is_quantized(dtype):
    q, x, bias = operands(mf.QuantSpec.parse("int4-g32"), 5, 21, 96, 7)
    spec, x = mf.QuantSpec.parse("int8-row"), (x / x.abs().max()).to(dtype)
    assert torch.equal(run(x, q, bias, spec), mf.emulator.linear(x.bfloat16(), q, bias, spec))


@pytest.mark.parametrize("dtype", FLOAT8)
def test_float8_nan_stays_in_its_row(dtype):
    q, x, bias = operands(mf.QuantSpec.parse("e2m1-g32"), 4, 9, 64, 9)
    x[2, 3] = float("nan")
    y = run(x.to(dtype), q, bias)
    assert y[2].isnan().all() and not y[[0, 1, 3]].isnan().any()


def test_extreme_scales():
    for factor, scale, weight in itertools.product((1e-37, 1e30), (1e-37, 1e37), ("e2m1-g32", "e2m1-g32-bf16")):
        q = mf.quantize(torch.randn(20, 64) * factor, weight)
        check_exact(torch.randn(3, 64) * scale, q, None, mf.QuantSpec.parse("int8-row"))


def test_empty_shapes():
    for m, n, k in ((0, 5, 32), (3, 0, 32), (2, 3, 0)):
        q, bias = mf.quantize(torch.randn(n, k), "int4-row"), torch.randn(n)
        for activation in (None, mf.QuantSpec.parse("int8-row")):
            check_exact(torch.randn(m, k), q, bias, activation)


def test_any_strides_and_leading_dimensions():
    q, x, bias = operands(mf.QuantSpec.parse("int4-g32"), 24, 21, 96, 8)
    want = run(x, q, bias, "int8-row")
    assert torch.equal(run(x.reshape(2, 3, 4, 96), q, bias, "int8-row"), want.reshape(2, 3, 4, 21))
    strided = torch.empty(96, 24).t().copy_(x)
    assert not strided.is_contiguous() and torch.equal(run(strided, q, bias, "int8-row"), want)
    assert run(x[0], q, bias, "int8-row").shape == (21,)


def test_repeats_give_the_same_bits():
    q, x, bias = operands(mf.QuantSpec.parse("e2m1-g32-e8m0"), 3, 7, 544, 3)
    for activation in (None, "int8-row"):
        for rows in (x[:1], x):
            first = run(rows, q, bias, activation)
            assert all(torch.equal(run(rows, q, bias, activation), first) for _ in range(1 if DEVICE == "cpu" else 100))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("planes", "group", "k"), [(3, 32, 96), (2, None, 100)])
def test_binary_coded(planes, group, k, rows):
    q, x, bias = binary_code(torch.randn(13, k), planes, group), torch.randn(rows, k), torch.randn(13)
    repeated = x.repeat(1, planes)
    assert torch.equal(
        run(repeated, q, bias, "int8-row"), mf.emulator.binary_coded(x, q, planes, bias, mf.QuantSpec.parse("int8-row"))
    )
    check_float(repeated, q, bias)


def test_gradients():
    q = mf.quantize(torch.randn(8, 64), "uint4-g32-bf16-zp")
    for activation in (None, "int8-row"):
        x = torch.randn(2, 3, 64, device=DEVICE).requires_grad_()
        bias, grad = torch.randn(8, device=DEVICE).requires_grad_(), torch.randn(2, 3, 8, device=DEVICE)
        mf.linear(x, to_device(q), bias, activation, backend="triton").backward(grad)
        torch.testing.assert_close(x.grad, grad @ q.dequantize().to(DEVICE))
        torch.testing.assert_close(bias.grad, grad.sum((0, 1)))


@pytest.mark.parametrize("dtype", FLOAT8)
def test_gradients_of_float8(dtype):
    """The gradient is made as bfloat16, y's type, and then has x's."""
    q = mf.quantize(torch.randn(8, 64), "uint4-g32-bf16-zp")
    x, bias = torch.randn(3, 64).to(dtype).to(DEVICE).requires_grad_(), torch.randn(8, device=DEVICE).requires_grad_()
    grad = torch.randn(3, 8, device=DEVICE).bfloat16()
    mf.linear(x, to_device(q), bias, backend="triton").backward(grad)
    want = (grad.float() @ q.dequantize().to(DEVICE)).bfloat16()
    assert x.grad.dtype == dtype and torch.equal(x.grad.float(), want.to(dtype).float())
    torch.testing.assert_close(bias.grad, grad.float().sum(0), rtol=2.0**-7, atol=2.0**-7)


@pytest.mark.parametrize("activation", [None, "int8-row"])
def test_opcheck_and_compile(activation):
    from minifloat.ops import triton

    activation = None if activation is None else mf.QuantSpec.parse(activation)
    q = to_device(mf.quantize(torch.randn(8, 64), "e2m1-g32-e8m0"))
    weight, plan = triton.prepare(q, activation)
    x, bias = torch.randn(3, 64, device=DEVICE).requires_grad_(), torch.randn(8, device=DEVICE).requires_grad_()
    op = torch.ops.minifloat.triton_linear.default
    torch.library.opcheck(op, (x, weight, plan, bias, 8))

    def by_op(x):
        return op(x * 2, weight, plan, bias, 8).relu()

    def by_name(x):
        return mf.linear(x * 2, q, bias, activation, backend="triton").relu()

    for f in (by_op, by_name):
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for rows in (x, torch.randn(5, 64, device=DEVICE)):
            assert torch.equal(compiled(rows), f(rows))


def test_bad_arguments():
    from minifloat.ops import triton

    q = to_device(mf.quantize(torch.randn(8, 64), "int4-g32"))
    weight, plan = triton.prepare(q, None)
    linear, x = torch.ops.minifloat.triton_linear, torch.randn(3, 64, device=DEVICE)
    calls = [
        (lambda: mf.linear(x[:, :60], q, backend="triton"), "but the weight has K=64"),
        (lambda: mf.linear(x.double(), q, backend="triton"), "x is Double; expected float32"),
        (lambda: mf.linear(x, q, x[0, :7], backend="triton"), r"bias has shape \[7\], expected \[8\]"),
        (lambda: linear(x, weight[:-1], plan, None, 8), "the packed weight must be"),
        (lambda: linear(x, weight, plan[1:], None, 8), "not a plan of this version"),
        (lambda: linear(x, weight, torch.zeros_like(plan), None, 8), "not a plan of this version"),
        (lambda: linear(x, weight, plan, None, 9), "out_features=9 but the weight has N=8"),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=message):
            call()
