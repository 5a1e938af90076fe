"""A layer of 4096 x 4096 on a GPU: the CPU takes long to quantize and emulate it, hence a process of its own."""

import pytest
import torch

from gpu_cases import Case, check_exact, check_float, make, on_gpu
from minifloat.ops import cuda

pytestmark = pytest.mark.skipif(
    not cuda.state().startswith("available"), reason=f"the CUDA backend did not run: {cuda.state()}"
)
FEW = (1, 16)
MOST = 64


def test_exact():
    q, x, bias, activation = make(Case("e2m1-g32-e8m0", "int8-row", MOST, 4096, 4096))
    check_exact(q, x, bias, activation)
    whole = on_gpu(q, x, bias, activation)
    for m in FEW:
        assert torch.equal(on_gpu(q, x[:m], bias, activation), whole[:m])


def test_float():
    q, x, bias, _ = make(Case("int4-g128", None, MOST, 4096, 4096, torch.float16))
    for m in (*FEW, MOST):
        check_float(q, x[:m], bias)
