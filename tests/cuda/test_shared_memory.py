"""What kernels ask of shared memory: never more than the GPU grants a block, and the same for every launch."""

import numpy as np
import pytest
import torch

import minifloat as mf
from checks import any_codes, assert_within_float_bound

A100 = 163 << 10


def test_a_small_launch_takes_nothing_from_a_large_one(shim, same_bits, make):
    """Two threads of the host may start the same kernel: what one asks for must do for the other."""
    shim.library.shim_least_granted()
    for m in (8, 6):  # 80 and 60 KiB of sums
        q, x, bias, spec = make("mxfp4", "int8-row", m, 16, 256, 1)
        same_bits(shim.linear(x, *shim.prepare(q, spec), bias, 80)[0], mf.emulator.linear(x, q, bias, spec))
        assert shim.library.shim_least_granted() == A100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("group", [None, 16])
def test_every_route_fits_the_smallest_gpus(shim, group, dtype):
    """linear_wide's ring of x and a table of 8-bit codes take 100 KiB; 8.9 grants 99."""
    odd = mf.Format.codebook("odd_to_255", np.arange(-255.0, 256.0, 2))  # in a table, and exact in 16 bits
    q = any_codes(mf.QuantSpec(odd, "group" if group else "row", group), (70, 512))
    for m in (1, 9, 20):
        x, bias = torch.randn(m, 512).to(dtype), torch.randn(70)
        for capability in (80, 86, 89, 90, 120):
            y, route, _ = shim.linear(x, *shim.prepare(q, None), bias, capability)
            assert_within_float_bound(y, q, x, bias)
            assert route == ("narrow" if m < 17 else {80: "wide", 90: "warpgroup"}.get(capability, "narrow"))


@pytest.mark.parametrize("weight", ["uint1-g16-zp", "uint2-g16-zp", "uint3-g16-zp", "int3-g16"])
def test_copies_on_their_way_fit_the_smallest_gpus(shim, same_bits, make, weight):
    """Beside scales, zero points and sums of each 16 k's."""
    for activation in ("int8-row", "e3m2-row"):
        q, x, bias, spec = make(weight, activation, 2, 17, 512, 1)
        y, route, _ = shim.linear(x, *shim.prepare(q, spec), bias, 89)
        same_bits(y, mf.emulator.linear(x, q, bias, spec))
        assert route == "narrow"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_two_tables_and_copies_fit_the_smallest_gpus(shim, make, dtype):
    """16 rows a block as long as the tables of 8-bit codes leave room: a block of fewer decodes them again."""
    for weight, rows in (("dynamic8-row", 16), ("dynamic8-g32", 16), ("dynamic8-g16", None)):
        q, _, bias, _ = make(weight, None, 1, 17, 512, 1)
        x, (layout, plan) = torch.randn(16, 512).to(dtype), shim.prepare(q, None)
        for capability in (80, 89):
            y, route, _ = shim.linear(x, layout, plan, bias, capability)
            assert_within_float_bound(y, q, x, bias)
            assert route == "narrow" and rows in (None, shim.columns(plan, 16, dtype, capability))


def test_other_routes_stay_where_they_fit(shim, make):
    for weight in ("int8-row", "e2m3-g16", "e3m4-row"):
        plan = shim.prepare(make(weight, None, 1, 16, 64, 0)[0], None)[1]
        assert shim.route(plan, 20, torch.float16, 89) == "wide float16"
