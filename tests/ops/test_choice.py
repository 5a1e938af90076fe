"""The choice of algorithm: what the table picks, and that every algorithm it could pick gives the same bits."""

from itertools import product
from pathlib import Path

import pytest
import torch

import minifloat as mf

METHODS = ("dot", "offset8", "modular8", "offset4", "modular4", "guarded4", "modular2", "signed2", "signed4", "offset2")
METHODS += ("offset1", "clamped4", "signed1", "nibbles", "two_digits", "residues", "words")
WEIGHTS = ("int2", "e2m1", "e3m0", "int5", "e2m2", "int6", "e1m4", "e2m3", "int7", "e1m5", "int8", "e1m6")
WEIGHTS += ("e3m1", "e3m2", "e4m3fn", "e5m2", "nf4")


def on_intel():
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text()


def plan_of(weight, activation, k=128):
    return mf.ops.prepare(mf.quantize(torch.randn(8, k), weight), activation and mf.QuantSpec.parse(activation))[1]


def assert_every_method_is_exact(isa, x, q, activation):
    want = mf.emulator.linear(x, q, None, activation)
    for method in METHODS if isa == "avx2" else ("",):
        with mf.ops.forced_choice(method, "registers" if method == "signed4" else "panel"):
            assert torch.equal(mf.linear(x, q, activation=activation), want), method


@pytest.fixture
def on_avx2():
    if "avx2" not in mf.ops.supported_isas():
        pytest.skip("this CPU has no AVX2")
    before = mf.ops.isa()
    mf.ops.select_isa("avx2")
    yield
    mf.ops.select_isa(before)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("decode", ["registers", "panel"])
@pytest.mark.parametrize("activation", ["int8-row", "int7-row", "mxint8"])
def test_every_method_gives_the_same_bits(isa, weight, decode, activation):
    generator = torch.Generator().manual_seed(3)
    q = mf.quantize(torch.randn(35, 96, generator=generator), f"{weight}-g32")
    methods = METHODS if isa == "avx2" else ("",)
    for m in (1, 6):
        x = torch.randn(m, 96, generator=generator)
        want = mf.emulator.linear(x, q, None, activation)
        for method in methods:
            with mf.ops.forced_choice(method, decode):
                assert torch.equal(mf.linear(x, q, activation=activation), want), (method, m)


@pytest.mark.parametrize(
    "weight", ["int4", "int5", "e2m2", "e3m1", "int6", "e1m4", "e2m3", "e3m2", "int7", "e1m5", "int8"]
)
@pytest.mark.parametrize("activation", ["int8-row", "int7-row"])
def test_the_largest_sums(isa, weight, activation):
    """Every product at its largest, of one sign or of alternating ones: what the proofs of depth speak of."""
    top = torch.tensor([[1.0, 1], [-1, -1], [1, -1], [-1, 1]]).repeat(8, 64)
    q = mf.quantize(top, f"{weight}-row")
    for x in (top[:4], -top[:4]):
        assert_every_method_is_exact(isa, x, q, activation)


@pytest.mark.parametrize("sizes", [(60, 60, 60, 60, 18, 0, 0, 0), (60, 60, 60, 60, 15, 4, 0, 0)])
@pytest.mark.parametrize("scales", ["row", "g16", "g32"])
def test_sums_at_the_edge_of_their_guard(isa, sizes, scales):
    """e2m3: magnitudes of 258 in a sum times 127 fit int16, those of 259 do not, and only some blocks hold them."""
    generator = torch.Generator().manual_seed(8)
    w = torch.randint(0, 5, (40, 8, 4, 4), generator=generator) / 8.0  # spans of four quads
    w[..., 0, 2] = 7.5  # so that scales are 1
    w[::2, 1::3, :, :2] = torch.tensor(sizes).reshape(4, 2) / 8.0  # the k's that a sum adds
    signs = torch.where(torch.rand(128, generator=generator) < 0.5, -1.0, 1.0)
    w = w.reshape(40, 128) * signs
    q = mf.quantize(w, f"e2m3-{scales}")
    assert torch.equal(q.dequantize(), w)
    x = torch.stack([signs, -signs, signs.roll(1), torch.randn(128, generator=generator)])
    assert_every_method_is_exact(isa, x, q, "int8-row")


@pytest.mark.parametrize(
    "octet", [(94, 94, -94, 94), (95, 94, 0, 0), (-95, -94, 3, 3), (7, 0, 94, 95), (-9, 4, -94, -95)]
)
@pytest.mark.parametrize("scales", ["row", "g128"])
@pytest.mark.parametrize("weight", ["int8", "e1m6", "e2m4"])
def test_octets_at_the_edge_of_what_clamped_activations_leave(isa, weight, octet, scales):
    """Pairs of one sign of 188 times 174 fit int16, those of 189 do not.

    Activations of +-87 meet a pair, and small enough ones the rest of the span to be left so; some are cut off.
    """
    generator = torch.Generator().manual_seed(9)
    largest = 124 if weight == "e2m4" else 127
    w = torch.randint(-20, 21, (40, 32, 8), generator=generator).float()
    w[::2, 1::3] = torch.tensor([octet[0], octet[1], 5, -7, octet[2], octet[3], 7, -5], dtype=torch.float32)
    w[:, 0::16, 7] = largest  # so that scales are 1
    w = w.reshape(40, 256)
    q = mf.quantize(w, f"{weight}-{scales}")
    if weight == "int8":
        assert torch.equal(q.dequantize(), w)
    x = torch.randint(-20, 21, (2, 32, 8), generator=generator).float()
    x[0, 1::3] = torch.tensor([87.0, 87, 3, 4, 60, 60, 5, 6])
    x[1, 1::3] = torch.tensor([60.0, 60, 3, 4, 87, 87, 5, 6])
    x = x.reshape(2, 256)
    x = torch.cat([x, x.abs() * w[0].sign(), x.abs() * w[2].sign()])
    x[:, 3] = 127  # scales are 1
    cut = torch.where(torch.rand(x.shape, generator=generator) < 0.05, 127.0 * x.sign(), x)
    for rows in (x, cut, torch.cat([x, cut, -x, -cut])):
        assert_every_method_is_exact(isa, rows, q, "int8-row")


@pytest.mark.parametrize("size", [71, 73, 94])
@pytest.mark.parametrize("half", [0, 1])
def test_spans_at_the_edge_of_their_norms(isa, size, half):
    """Eight products, in one half of the quads of a span: 71 times 57 fit int16, 71 times 60 and 73 times 57 do not.

    Pairs of 94 fit.
    """
    generator = torch.Generator().manual_seed(12)
    lane, every_third = slice(2 * half, 2 * half + 2), slice(1, None, 3)
    signs = torch.randint(0, 2, (16, 4, 2), generator=generator) * 2.0 - 1
    w = torch.randint(-20, 21, (40, 16, 4, 4), generator=generator).float()  # spans, quads, k's
    w[::2, every_third, :, lane] = size * signs[every_third]
    x = torch.randint(-9, 10, (9, 16, 4, 4), generator=generator).float()
    for row, of_row in enumerate((56, 57, 60, 87, -56, -57, -60, -87, 127)):
        x[row, every_third, :, lane] = of_row * signs[every_third]
    w[:, 0, 0, 0] = x[:, 0, 0, 0] = 127  # so that scales are 1
    w, x = w.reshape(40, 256), x.reshape(9, 256)
    q = mf.quantize(w, "int8-row")
    assert torch.equal(q.dequantize(), w)
    assert_every_method_is_exact(isa, x, q, "int8-row")


def test_weights_of_minus_128(isa):
    w = torch.full((20, 256), -127.8)  # a power of two as scale is 1, and rounds this to -128
    w[::3, ::5] = 3.0
    q = mf.quantize(w, "int8-row-e8m0")
    assert q.dequantize().min() == -128
    x = torch.randn(7, 256, generator=torch.Generator().manual_seed(10))
    assert_every_method_is_exact(isa, x, q, "int8-row")


@pytest.mark.parametrize("k", [129, 134, 143, 161])
@pytest.mark.parametrize("weight", ["int8-row", "int7-row", "e1m6-row", "int3-row"])
def test_the_last_input_beside_missing_ones(isa, weight, k):
    """Missing inputs have the code 0, -128 in int8: an int16 sum must have room for it and the smallest weight."""
    generator = torch.Generator().manual_seed(11)
    w, x = torch.randn(20, k, generator=generator), torch.randn(7, k, generator=generator)
    w[:, -1] = -w.abs().amax(1)
    x[:4, -1] = x[:4].abs().amax(1) * torch.tensor([0.69, 0.67, -0.69, 1])
    q = mf.quantize(w, weight)
    assert_every_method_is_exact(isa, x, q, "int8-row")


@pytest.mark.parametrize(
    ("weight", "activation", "avx2", "panel"),
    [
        ("int4-row", "int8-row", "offset8", "offset8"),
        ("e2m1-g32", "int8-row", "modular8", "modular8"),
        ("e2m2-row", "int8-row", "offset2", "modular4"),
        ("int6-row", "int8-row", "offset2", "modular4"),
        ("e1m4-row", "int8-row", "signed2", "modular4"),
        ("e2m3-row", "int8-row", "signed2", "guarded4"),
        ("e2m3-row", "mxint8", "offset1", "offset1"),
        ("int8-row", "int8-row", "signed4", "clamped4"),
        ("int8-g32", "int8-row", "signed1", "signed1"),  # a fold is too short for a loop for each kind of octet
        ("int8-row", "int7-row", "offset1", "guarded4"),
        ("int8-row", "mxint8", "nibbles", "nibbles"),  # holds -128
        ("e4m3fn-row", "int8-row", "", ""),  # neither carrier's
    ],
)
def test_the_table_on_avx2(on_avx2, weight, activation, avx2, panel):
    plan = plan_of(weight, activation)
    assert mf.ops.choice(plan, 1) == (avx2, "registers")
    assert mf.ops.choice(plan, 64) == (panel, "panel")
    with mf.ops.forced_choice("", "registers"):
        assert mf.ops.choice(plan, 64) == (avx2, "registers")
    with mf.ops.forced_choice("offset8"):  # exact for int4 only: elsewhere the table decides
        assert mf.ops.choice(plan, 1)[0] == avx2


@pytest.mark.parametrize("weight", ["e3m3-row", "e4m3fn-row"])
def test_int16_digits_are_decoded_where_one_tile_has_all_rows(on_avx2, weight):
    plan = plan_of(weight, "int8-row")
    where = {rows: mf.ops.choice(plan, rows)[1] for rows in (1, 2, 3, 4, 5, 8)}
    assert where == {1: "registers", 2: "registers", 3: "panel", 4: "registers", 5: "panel", 8: "panel"}


@pytest.mark.parametrize(
    ("weight", "marked", "beyond", "method"),
    [
        ("int8-row", 0.025, 0.011, "clamped4"),  # normally distributed, K = 4096
        ("int8-row", 0.0, 0.083, "clamped4"),
        ("int8-row", 0.0, 0.085, "signed1"),
        ("int8-row", 0.83, 0.0, "clamped4"),
        ("int8-row", 0.85, 0.0, "signed1"),
        ("int8-row", 0.4, 0.045, "signed1"),
        ("e2m3-row", 0.12, 1.0, "guarded4"),
        ("e2m3-row", 0.13, 0.0, "modular2"),
    ],
)
def test_what_is_not_rare(on_avx2, weight, marked, beyond, method):
    assert mf.ops.choice(plan_of(weight, "int8-row"), 64, marked, beyond) == (method, "panel")


@pytest.mark.parametrize(
    ("weight", "k", "rows", "beyond", "residues", "want"),
    [
        ("e3m1-row", 4096, 1, 0.011, 0.034, ("two_digits", "registers")),
        ("e3m1-row", 4096, 2, 0.011, 0.034, ("residues", "registers")),
        ("e3m1-row", 4096, 4, 0.5, 0.034, ("residues", "registers")),  # nothing is cut off
        ("e3m1-row", 384, 4, 0.011, 0.042, ("two_digits", "registers")),  # short lists
        ("e3m1-row", 4096, 5, 0.011, 0.034, ("residues", "panel")),
        ("e3m1-row", 384, 64, 0.011, 0.042, ("words", "panel")),  # short lists
        ("e3m1-row", 1024, 64, 0.011, 0.036, ("residues", "panel")),
        ("e3m1-row", 4096, 64, 0.011, 0.0, ("words", "panel")),  # so many that they are left out
        ("e3m1-row", 4096, 64, 0.1, 0.034, ("words", "panel")),  # many large activations
        ("e3m2-row", 4096, 2, 0.011, 0.073, ("two_digits", "registers")),
        ("e3m2-row", 4096, 4, 0.011, 0.073, ("residues", "registers")),
        ("e3m2-row", 4096, 8, 0.011, 0.073, ("words", "panel")),
        ("e3m2-row", 4096, 12, 0.011, 0.073, ("residues", "panel")),
        ("e3m3-row", 4096, 4, 0.011, 0.0, ("words", "registers")),
        ("e3m2-g32", 4096, 4, 0.011, 0.0, ("two_digits", "registers")),
    ],
)
def test_grids_of_more_than_8_bits(on_avx2, weight, k, rows, beyond, residues, want):
    assert mf.ops.choice(plan_of(weight, "int8-row", k), rows, 0.01, beyond, residues) == want


def has_lists(q):
    """Whether the layout of this instruction set is longer than the scalar one's."""
    spec, isa = mf.QuantSpec.parse("int8-row"), mf.ops.isa()
    layout = mf.ops.prepare(q, spec)[0]
    mf.ops.select_isa("scalar")
    without = mf.ops.prepare(q, spec)[0]
    mf.ops.select_isa(isa)
    return layout.numel() > without.numel()


@pytest.mark.parametrize("weight", ["e3m1-row", "e3m1-tensor", "e3m2-row", "e3m3-row"])
@pytest.mark.parametrize("k", [1600, 2050])
def test_residues(isa, weight, k):
    """Few weights that a byte does not hold, and an output of nothing else: its sums of activations exceed int16."""
    f = mf.Format.parse(weight.split("-")[0])
    generator = torch.Generator().manual_seed(8)
    values = torch.tensor(sorted({abs(v) for v in f.values}), dtype=torch.float32)
    w = values[-5:][torch.randint(5, (100, k), generator=generator)]
    w[:, ::50] = values[torch.randint(len(values), (100, -(-k // 50)), generator=generator)]
    w[17] = values[1]  # the smallest
    w *= torch.randn(100, k, generator=generator).sign()
    w[17, 1:] = w[17, 1:].abs()
    w[:, 0] = f.max
    q = mf.quantize(w, weight)
    assert torch.equal(q.dequantize(), w)
    assert has_lists(q) == (isa == "avx2")
    x = torch.randn(70, k, generator=generator)
    x[:2] = torch.tensor([[1.0], [-1.0]])
    for m in (1, 2, 3, 4, 5, 16, 17, 33, 70):
        want = mf.emulator.linear(x[:m], q, None, "int8-row")
        for method, decode in product(("residues", "words", ""), ("", "panel")):
            with mf.ops.forced_choice(method, decode):
                assert torch.equal(mf.linear(x[:m], q, activation="int8-row"), want), (m, method)


@pytest.mark.parametrize(("weight", "part"), [("e3m1", 1 / 2), ("e3m2", 3 / 7)])
@pytest.mark.parametrize("half", [0, 1])
def test_residues_beside_bytes_of_large_norms(on_avx2, weight, part, half):
    """Eight products, in one half of the quads of a span, exceed int16 by the norm of either side."""
    largest = mf.Format.parse(weight).max
    generator = torch.Generator().manual_seed(13)
    lane = slice(2 * half, 2 * half + 2)
    signs = torch.randint(0, 2, (104, 4, 2), generator=generator) * 2.0 - 1
    w = largest * torch.randn(40, 104, 4, 4, generator=generator).clamp(-3, 3) / 3.2
    w[::2, 1::3, :, lane] = largest * part * signs[1::3]  # a norm that the layout does not mark
    w[::2, 2::9, :, lane] = largest * signs[2::9]
    w[::2, 3::9, 0, lane] = largest  # a pair of one sign, too large for activations plus what they are cut off at
    w[:, 0, 0, 0] = largest  # so that scales are 1
    x = torch.randint(-9, 10, (8, 104, 4, 4), generator=generator).float()
    x[::2, 1::3, :, lane] = 127 * signs[1::3]
    x[1::2, 2::3, :, lane] = -60 * signs[2::3]  # a norm that needs no guard
    x[:, 3::9, 0, lane] = 127
    x[:, 0, 0, 0] = 127
    w, x = w.reshape(40, 1664), x.reshape(8, 1664)
    q = mf.quantize(w, f"{weight}-row")
    plan = mf.ops.prepare(q, mf.QuantSpec.parse("int8-row"))[1]
    assert has_lists(q)
    for rows in (x[:1], x[:2], x[1:4], x[:4], x):
        want = mf.emulator.linear(rows, q, None, "int8-row")
        for decode in ("registers", "panel") if len(rows) <= 4 else ("panel",):
            with mf.ops.forced_choice("residues", decode):
                assert mf.ops.choice(plan, len(rows), residues=0.05) == ("residues", decode)
                assert torch.equal(mf.linear(rows, q, activation="int8-row"), want), len(rows)


def test_layouts_with_residues(on_avx2):
    """Only where they are few and rows long, and a layout that was cut short is none."""
    spec = mf.QuantSpec.parse("int8-row")
    w = torch.randn(40, 1024, generator=torch.Generator().manual_seed(9))
    small = w.sign() * torch.exp2(-9 * w.abs().clamp(max=1))
    few, many = mf.quantize(w, "e3m1-row"), mf.quantize(small, "e3m1-row")
    layout, plan = mf.ops.prepare(few, spec)
    assert layout.numel() > mf.ops.prepare(many, spec)[0].numel()
    short, short_many = (mf.ops.prepare(mf.quantize(v[:, :256], "e3m1-row"), spec)[0] for v in (w, small))
    assert short.numel() == short_many.numel()
    for q in (few, many):
        with mf.ops.forced_choice("residues"):
            want = mf.emulator.linear(w, q, None, "int8-row")
            assert torch.equal(mf.linear(w, q, activation="int8-row"), want)
        restored = mf.ops.restore(*mf.ops.prepare(q, spec), q.spec, q.shape)
        assert torch.equal(restored.packed, q.packed) and torch.equal(restored.scale_data, q.scale_data)
    for cut in (1, 8, 1000):
        with pytest.raises(ValueError, match="the packed weight must be"):
            torch.ops.minifloat.linear(w, layout[:-cut], plan, None, 40)


def test_the_float_contract(isa):
    plan = plan_of("nf4-g32", None)
    assert mf.ops.choice(plan, 32)[1] == ("gemm" if isa == "scalar" or on_intel() else "panel")
    q, x = mf.quantize(torch.randn(20, 64), "nf4-g32"), torch.randn(3, 64)
    want = x.double() @ q.dequantize().double().T
    for decode in ("registers", "panel", "gemm"):
        with mf.ops.forced_choice("", decode):
            assert torch.allclose(mf.linear(x, q).double(), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("weight", ["int1", "int2", "int3", "e2m1", "int5", "e2m3", "int7", "e4m3fn"])
@pytest.mark.parametrize("scales", ["row", "g16"])
def test_weights_for_gemm(isa, weight, scales):
    """Weights of every width, decoded for torch's GEMM: rows of the identity give each of them, exactly."""
    q = mf.quantize(torch.randn(50, 96, generator=torch.Generator().manual_seed(9)), f"{weight}-{scales}")
    with mf.ops.forced_choice("", "gemm"):
        assert torch.equal(mf.linear(torch.eye(96), q), q.dequantize().T)


def test_unknown_names():
    cases = [
        (("fast", ""), "unknown method 'fast', there are: dot, offset8"),
        (("", "twice"), "unknown way to decode 'twice'"),
    ]
    for names, message in cases:
        with pytest.raises(ValueError, match=message), mf.ops.forced_choice(*names):
            pass
    with pytest.raises(ValueError, match="not a plan"):
        mf.ops.choice(torch.zeros(3, dtype=torch.uint8), 1)


@pytest.mark.parametrize(
    ("weight", "k"),
    [*product(["e3m2", "e3m3", "e3m4", "e4m1", "e4m3fn", "e5m2", "e5m2fnuz"], [20000, 40000]), ("e3m1", 100000)],
)
def test_long_sums_of_the_largest_products(isa, weight, k):
    """More products than an int32 sum of int16 digits holds: it must be emptied on the way."""
    generator = torch.Generator().manual_seed(5)
    q = mf.quantize(torch.where(torch.rand(3, k, generator=generator) < 0.01, 1e-3, 1.0), f"{weight}-row")
    x = torch.ones(3, k)
    for decode in ("registers", "panel"):
        with mf.ops.forced_choice("", decode):
            assert torch.equal(mf.linear(x, q, activation="int8-row"), mf.emulator.linear(x, q, None, "int8-row"))


@pytest.mark.parametrize("weight", ["e4m1", "e4m2", "e4m3ieee", "e4m3fn", "e4m3fnuz", "e5m1", "e5m2", "e5m2fnuz"])
@pytest.mark.parametrize("scales", ["row", "g16", "g32", "g96"])
def test_weights_of_every_exponent(isa, weight, scales):
    """Every finite code, and rows that hold one code only, zeros and the smallest among them."""
    f = mf.Format.parse(weight)
    finite = torch.tensor(f.values[f.is_number], dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    w = finite[torch.randint(len(finite), (50, 480), generator=generator)]
    w[:, ::16] = f.max  # so that scales are 1
    w[17:33, 1:16] = finite[torch.arange(16)[:, None] * len(finite) // 16]
    q = mf.quantize(w, f"{weight}-{scales}")
    assert torch.equal(q.dequantize(), w)
    x = torch.randn(6, 480, generator=generator)
    for activation in ("int8-row", "mxint8"):
        for m in (1, 2, 3, 6):
            want = mf.emulator.linear(x[:m], q, None, activation)
            for decode in ("registers", "panel"):
                with mf.ops.forced_choice("", decode):
                    assert torch.equal(mf.linear(x[:m], q, activation=activation), want), (m, decode)


@pytest.mark.parametrize("activation", ["int8-row", "mxint8", None])
def test_many_rows_go_in_passes(isa, activation):
    """More rows than one pass takes, each the same as alone."""
    rows = 2**21 // (16384 * (1 if activation else 4)) + 70
    generator = torch.Generator().manual_seed(6)
    q = mf.quantize(torch.randn(5, 16384, generator=generator), "int4-g32")
    x = torch.randn(rows, 16384, generator=generator)
    with mf.ops.forced_choice("", "panel"):
        y, alone = mf.linear(x, q, activation=activation), [mf.linear(row[None], q, activation=activation) for row in x]
    assert torch.equal(y, torch.cat(alone))
