"""Hand-written kernels, one folder a target. Python sees the Triton ones, as minifloat.kernels.triton."""
