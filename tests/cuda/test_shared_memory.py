"""What kernels ask of shared memory: never more than the GPU grants a block, and the same for every launch."""

import minifloat as mf

A100 = 163 << 10


def test_a_small_launch_takes_nothing_from_a_large_one(shim, same_bits, make):
    """Two threads of the host may start the same kernel: what one asks for must do for the other."""
    shim.library.shim_least_granted()
    for m in (8, 6):  # 80 and 60 KiB of sums
        q, x, bias, spec = make("mxfp4", "int8-row", m, 16, 256, 1)
        same_bits(shim.linear(x, *shim.prepare(q, spec), bias, 80)[0], mf.emulator.linear(x, q, bias, spec))
        assert shim.library.shim_least_granted() == A100
