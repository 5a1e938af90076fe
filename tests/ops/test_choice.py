"""The choice of algorithm: what the table picks, and that every algorithm it could pick gives the same bits."""

import pytest
import torch

import minifloat as mf

METHODS = ("dot", "offset8", "offset4", "offset2", "offset1", "signed1", "nibbles")
WEIGHTS = ("int2", "e2m1", "int5", "e2m2", "int6", "e2m3", "int7", "int8", "e1m6", "e3m2", "e4m3fn", "nf4")


def plan_of(weight, activation, k=64):
    return mf.ops.prepare(mf.quantize(torch.randn(8, k), weight), activation and mf.QuantSpec.parse(activation))[1]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("decode", ["registers", "panel"])
@pytest.mark.parametrize("activation", ["int8-row", "mxint8"])
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
    ("weight", "activation", "avx2"),
    [
        ("int4-row", "int8-row", "offset8"),
        ("e2m1-g32", "int8-row", "offset4"),
        ("e2m2-row", "int8-row", "offset2"),
        ("int6-row", "int8-row", "offset2"),
        ("e2m3-row", "int8-row", "offset1"),
        ("int8-row", "int8-row", "signed1"),
        ("int8-row", "mxint8", "nibbles"),  # holds -128
        ("e3m2-row", "int8-row", ""),  # not the int8 carrier
    ],
)
def test_the_table_on_avx2(weight, activation, avx2):
    if "avx2" not in mf.ops.supported_isas():
        pytest.skip("this CPU has no AVX2")
    before = mf.ops.isa()
    mf.ops.select_isa("avx2")
    try:
        plan = plan_of(weight, activation)
        assert mf.ops.choice(plan, 1) == (avx2, "registers")
        assert mf.ops.choice(plan, 64) == (avx2, "panel")
        with mf.ops.forced_choice("nibbles", "registers"):
            assert mf.ops.choice(plan, 64) == ("nibbles" if avx2 else "", "registers")
        with mf.ops.forced_choice("offset8"):  # exact for int4 only: elsewhere the table decides
            assert mf.ops.choice(plan, 1)[0] == avx2
    finally:
        mf.ops.select_isa(before)


def test_the_float_contract_turns_to_gemm():
    plan = plan_of("nf4-g32", None)
    assert [mf.ops.choice(plan, m)[1] for m in (32, 500)] == ["gemm", "gemm"]
    q, x = mf.quantize(torch.randn(20, 64), "nf4-g32"), torch.randn(3, 64)
    want = x.double() @ q.dequantize().double().T
    for decode in ("registers", "panel", "gemm"):
        with mf.ops.forced_choice("", decode):
            assert torch.allclose(mf.linear(x, q).double(), want, rtol=0, atol=1e-4)


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
