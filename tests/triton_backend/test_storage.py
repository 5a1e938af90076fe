"""Quantize, dequantize, pack and the weight layout on Triton against the compiled CPU ops: equal bits."""

import numpy as np
import pytest
import torch

import minifloat as mf
from checks import any_codes
from minifloat.ops import triton
from minifloat.ops.records import operand_record
from triton_backend.device import DEVICE, to_device

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, of overflow
SPECS = (
    *(
        "int8-row",
        "int4-g32",
        "uint4-g16-zp",
        "int3-row-bf16-zp",
        "uint8-tensor-zp",
        "e2m1-row",
        "e2m1-tensor",
        "mxfp4",
    ),
    *("mxfp6-e2m3", "mxfp6-e3m2", "mxfp8-e4m3", "mxfp8-e5m2", "mxint8", "nvfp4", "nf4", "e3m0-row", "e7m0-row"),
    *("ue4m4-row", "e4m3fn-row", "e4m3fnuz-g32-bf16", "e5m2-row", "binary-row", "ternary-g8", "flint4-tensor"),
    *("dynamic8-g64", "e4m3fn-g16-e4m3fn"),
)
ROUNDED = ("e2m1", "e3m0", "e2m3", "e3m2", "e4m3fn", "e5m2", "e3m4", "int4", "nf4", "dynamic8", "e7m0")


def awkward(rows, k):
    """Values over the whole range of float32, zeros, subnormals and ties."""
    x = torch.randn(rows, k)
    x[1] *= 1e-30
    x[2] *= 1e30
    x[3] = 0
    x[4] = torch.randint(-12, 13, (k,)) / 4
    x[5] *= 1e-42
    x[6] = torch.tensor([3.0e38, -3.4e38]).repeat(k // 2)
    x[7] = -0.0
    x[8] = x[8].abs()
    return x


def bits(t):
    return t.cpu().view(torch.int32) if t.dtype == torch.float32 else t.cpu()


@pytest.mark.parametrize("spec", SPECS)
def test_quantize_and_dequantize_equal_the_cpu(spec):
    spec = mf.QuantSpec.parse(spec)
    record = operand_record(spec)
    x = awkward(12, 128)
    for part in (x, x[:5], x[8:]):
        want = torch.ops.minifloat.quantize(part, record)
        got = triton.quantize(part.to(DEVICE), record)
        for name, a, b in zip(("codes", "scales", "zero points", "tensor scale"), got, want, strict=True):
            # a zero point is an integer: its 0 has no sign
            same = torch.equal(a.cpu(), b) if name == "zero points" else torch.equal(bits(a), bits(b))
            assert a.shape == b.shape and same, name
        codes, scales, points, second = want
        points = points if spec.zero_point else None
        arguments = (codes, scales, points, float(second), record)
        there = [a.to(DEVICE) if torch.is_tensor(a) and a is not record else a for a in arguments]
        assert torch.equal(bits(triton.dequantize(*there)), bits(torch.ops.minifloat.dequantize(*arguments)))


@pytest.mark.parametrize("name", ROUNDED)
def test_every_midpoint_and_its_neighbours(name):
    f = mf.Format.parse(name)
    values = np.unique(f.values[f.is_number]).astype(np.float32)
    middle = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(side)) for side in (np.inf, -np.inf)]
    points = np.concatenate([values, middle, *beside])
    points = torch.from_numpy(np.concatenate([points, -points, [0.0, -0.0, np.nan, np.inf]]).astype(np.float32))[None]
    record = operand_record(mf.QuantSpec.parse(f"{name}-row"))
    given = (torch.ones(1, 1), None, 1.0)
    codes, *_ = triton.quantize(points.to(DEVICE), record, torch.ones(1, 1, device=DEVICE), None, 1.0)
    assert torch.equal(codes.cpu(), torch.ops.minifloat.quantize(points, record, *given)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_quantize_of_half_precision(dtype):
    record = operand_record(mf.QuantSpec.parse("int8-g32"))
    x = torch.randn(3, 96).to(dtype)
    got = triton.quantize(x.to(DEVICE), record)
    want = torch.ops.minifloat.quantize(x.float(), record)
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("width", range(1, 9))
def test_pack_equals_the_cpu(width):
    for k in (0, 1, 7, 9, 31, 300):
        codes = torch.randint(0, 1 << width, (3, k), dtype=torch.uint8)
        packed = triton.pack(codes.to(DEVICE), width)
        assert torch.equal(packed.cpu(), torch.ops.minifloat.pack(codes, width))
        assert torch.equal(triton.unpack(packed, width, k).cpu(), codes)


@pytest.mark.parametrize("spec", SPECS)
def test_layout_round_trip(spec):
    """Any code, specials aside, survives the kernels' layout: minus zero and unused codes too."""
    spec = mf.QuantSpec.parse(spec)
    for n in (1, 37):
        q = any_codes(spec, (n, 192))
        got = triton.restore_weight(*triton.prepare(to_device(q), mf.QuantSpec.parse("int8-row")))
        want = torch.ops.minifloat.restore_weight(*mf.ops.prepare(q, None))
        assert all(torch.equal(a.cpu(), b) for a, b in zip(got, want, strict=True))


def test_layout_takes_bits_per_code():
    from minifloat.kernels.triton.pack import layout_of
    from minifloat.ops.triton_plan import plan_of

    for width in range(1, 9):
        _, plan = triton.prepare(to_device(mf.quantize(torch.randn(16, 512), f"uint{width}-g64")), None)
        p = plan_of(plan)
        assert layout_of(16, 512, p.w).bytes == 16 * 512 * width // 8 + 16 * 8 * 4
