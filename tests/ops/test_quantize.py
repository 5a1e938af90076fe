"""The quantize, dequantize, pack and layout ops against the emulator and the reference packing."""

import mmap
import re

import numpy as np
import pytest
import torch

import minifloat as mf
from checks import any_codes
from minifloat import packing
from minifloat.ops.records import operand_record

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
    *(
        "mxfp6-e2m3",
        "mxfp6-e3m2",
        "mxfp8-e4m3",
        "mxfp8-e5m2",
        "mxint8",
        "nvfp4",
        "nf4",
        "e3m0-row",
        "e7m0-row",
        "ue4m4-row",
    ),
    *("e4m3fn-row", "e4m3fnuz-g32-bf16", "e5m2-row", "binary-row", "ternary-g8", "flint4-tensor", "dynamic8-g64"),
    *("e4m3fn-g16-e4m3fn", "e2m1-g32-e8m0-mse", "int4-g32-mse", "uint4-g32-zp-mse"),
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


@pytest.mark.parametrize("spec", SPECS)
def test_quantize_equals_the_emulator(isa, spec):
    x = awkward(16, 128)
    for part in (x, x[:5], x[8:]):
        q, want = mf.quantize(part, spec), mf.emulator.quantize(part, spec)
        got = q.as_quantized()
        np.testing.assert_array_equal(got.codes, want.codes)
        np.testing.assert_array_equal(got.scales, want.scales)
        assert (got.zero_points is None) == (want.zero_points is None)
        if want.zero_points is not None:
            np.testing.assert_array_equal(got.zero_points, want.zero_points)
        assert got.tensor_scale == want.tensor_scale
        with np.errstate(over="ignore"):  # mxint8 can round up past the largest float32
            back = mf.emulator.dequantize(want).astype(np.float32)
        if want.tensor_scale is None:
            np.testing.assert_array_equal(q.dequantize().numpy(), back)
        else:  # two-level scales are multiplied first: one more rounding
            np.testing.assert_allclose(q.dequantize().numpy(), back, rtol=2**-23)


@pytest.mark.parametrize("name", ROUNDED)
def test_every_midpoint_and_its_neighbours(isa, name):
    f = mf.Format.parse(name)
    values = np.unique(f.values[f.is_number]).astype(np.float32)
    middle = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(side)) for side in (np.inf, -np.inf)]
    points = np.concatenate([values, middle, *beside])
    points = np.concatenate([points, -points, [0.0, -0.0]]).astype(np.float32)
    # a scale of 1 is given, so x itself is encoded: the kernel's thresholds against Format.encode
    record = operand_record(mf.QuantSpec.parse(f"{name}-row"))
    codes, *_ = torch.ops.minifloat.quantize(torch.from_numpy(points)[None], record, torch.ones(1, 1), None, 1.0)
    np.testing.assert_array_equal(codes[0].numpy(), f.encode(points))
    # a column whose first entry makes the tensor's scale 1: the vectorised rounding to digits against the emulator
    top = np.float32(f.scale_max)
    column = torch.from_numpy(np.concatenate([[top], points[np.abs(points) <= top]]))[:, None]
    q, activation = mf.quantize(torch.ones(1, 1), "int8-row"), mf.QuantSpec.parse(f"{name}-tensor")
    assert mf.emulator.quantize(column, activation).scales.item() == 1
    assert torch.equal(
        mf.linear(column, q, activation=activation), mf.emulator.linear(column, q, activation=activation)
    )


@pytest.mark.parametrize("bits", range(1, 9))
def test_pack_equals_the_reference(bits):
    for k in (0, 1, 7, 8, 9, 31, 100):
        codes = torch.randint(0, 1 << bits, (5, k), dtype=torch.uint8)
        packed = torch.ops.minifloat.pack(codes, bits)
        np.testing.assert_array_equal(packed.numpy(), packing.pack(codes.numpy(), bits))
        assert torch.equal(torch.ops.minifloat.unpack(packed, bits, k), codes)


def test_pack_names_the_code_that_does_not_fit():
    with pytest.raises(ValueError, match=r"code 9 at \(1, 2\) does not fit in 3 bits"):
        torch.ops.minifloat.pack(torch.tensor([[0, 1, 2], [3, 4, 9]], dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="K=10 at 4 bits takes rows of 5"):
        torch.ops.minifloat.unpack(torch.zeros(2, 4, dtype=torch.uint8), 4, 10)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("activation", [None, "int8-row", "mxfp4", "int8-g64"])
def test_layout_round_trip(spec, activation):
    """Any code, specials aside, survives the kernels' layout: minus zero and unused codes too."""
    spec = mf.QuantSpec.parse(spec)
    activation = None if activation is None else mf.QuantSpec.parse(activation)
    for n in (1, 16, 37):
        q = any_codes(spec, (n, 192))
        back = mf.ops.restore(*mf.ops.prepare(q, activation), spec, q.shape)
        assert torch.equal(back.packed, q.packed) and torch.equal(back.scale_data, q.scale_data)
        assert (q.zero_points is None) or torch.equal(back.zero_points, q.zero_points)
        assert (q.tensor_scale is None) or torch.equal(back.tensor_scale, q.tensor_scale)


def test_a_layout_of_several_huge_pages():
    """Layouts of 2 MiB and more have memory of their own, which views keep alive."""
    q = any_codes(mf.QuantSpec.parse("int8-row"), (600, 4096))
    layout, record = mf.ops.prepare(q, mf.QuantSpec.parse("int8-row"))
    assert layout.numel() > 2**21 and layout.data_ptr() % 2**21 == 0
    x = torch.randn(1, 4096)
    want = mf.emulator.linear(x, q, activation="int8-row")
    view, copy = layout[:], layout.clone()
    del layout
    for weight in (view, copy):
        assert torch.equal(torch.ops.minifloat.linear(x, weight, record, None, 600), want)
        assert torch.equal(mf.ops.restore(weight, record, q.spec, q.shape).packed, q.packed)


def huge_page_bytes(address):
    """How much of the mapping that holds the address lies on huge pages, by the kernel's own account."""
    with open("/proc/self/smaps") as lines:
        inside = False
        for line in lines:
            if mapping := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
                inside = int(mapping[1], 16) <= address < int(mapping[2], 16)
            elif inside and line.startswith("AnonHugePages:"):
                return 1024 * int(line.split()[1])
    raise AssertionError(f"no mapping holds address {address:#x}")


def test_layouts_do_not_take_over_the_small_pages_of_freed_memory():
    """malloc hands freed memory out again: layouts of the same process were found on small pages, at half the speed."""
    size = 2**21
    mapped = mmap.mmap(-1, 4 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        mapped.madvise(mmap.MADV_HUGEPAGE)
    except (OSError, AttributeError):
        pytest.skip("this system does not offer huge pages")
    start = torch.frombuffer(mapped, dtype=torch.uint8).fill_(1).data_ptr()
    if huge_page_bytes(start) < 2 * size:
        pytest.skip("this system gave a mapping of 8 MiB no huge pages when it was asked for them")
    for _ in range(2):  # from the second turn on glibc takes pieces this large from its heap
        pieces = [torch.ones(6 * size, dtype=torch.uint8) for _ in range(12)]
        del pieces[::2]
    q = any_codes(mf.QuantSpec.parse("int8-row"), (1024, 4096))
    layouts = [mf.ops.prepare(q, mf.QuantSpec.parse("int8-row"))[0] for _ in range(6)]
    assert min(huge_page_bytes(layout.data_ptr()) for layout in layouts) >= 2 * size
