"""The CUDA weight layout, packed and restored by its kernels on the CPU."""

import pytest
import torch

import minifloat as mf
from checks import any_codes

SPECS = (
    *("binary-row", "int2-g32", "int3-row-bf16-zp", "e2m1-tensor", "mxfp4", "nvfp4", "uint4-g16-zp", "int5-g96", "nf4"),
    *("mxfp6-e3m2", "e3m3-row", "int7-g24", "mxfp8-e4m3", "uint8-tensor-zp", "e4m3fnuz-g32-bf16", "dynamic8-g64"),
)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("activation", [None, "int8-row", "mxfp4", "int8-g64"])
def test_round_trip(shim, spec, activation):
    """Any code, specials aside, survives: minus zero and unused codes too."""
    spec = mf.QuantSpec.parse(spec)
    activation = None if activation is None else mf.QuantSpec.parse(activation)
    for n in (1, 16, 37):
        q = any_codes(spec, (n, 192))
        packed, scales, points = shim.restore(*shim.prepare(q, activation), q)
        assert torch.equal(packed, q.packed) and torch.equal(scales, q.scale_data)
        assert q.zero_points is None or torch.equal(points, q.zero_points)


@pytest.mark.parametrize("k", [0, 1, 15, 255, 257])
def test_odd_k(shim, k):
    for bits in range(1, 9):
        q = mf.quantize(torch.randn(5, k), f"int{bits}-row")
        assert torch.equal(shim.restore(*shim.prepare(q, None), q)[0], q.packed)


def test_bytes_per_weight(shim):
    """At shapes of whole chunks the layout is as small as canonical storage."""
    for spec in ("int3-g128", "e2m1-g32-e8m0", "e2m3-row", "uint4-g64-zp"):
        q = mf.quantize(torch.randn(32, 512), spec)
        points = 0 if q.zero_points is None else q.zero_points.numel()
        scales = q.scale_data.numel() * q.scale_data.element_size()
        assert shim.prepare(q, None)[0].numel() == q.packed.numel() + scales + points
