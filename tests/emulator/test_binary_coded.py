"""The reference of binary-coded weights against their definition, plane by plane."""

import numpy as np
import pytest
import torch

import minifloat as mf
from minifloat.binary_coding import binary_code


@pytest.mark.parametrize("planes", [1, 2, 3, 8])
@pytest.mark.parametrize("group", [20, 100])
def test_exact_is_the_sum_of_the_planes_in_their_order(planes, group):
    """docs/numerics.md, with one float32 operation at a time: planes, then groups, then the scale of x and the bias."""
    torch.manual_seed(0)
    w, x, bias = torch.randn(7, 100), torch.randn(5, 100), torch.randn(7).numpy()
    q = binary_code(w, planes, group, "float32")
    b = (q.codes.numpy().astype(np.int64) * 2 - 1).reshape(7, planes, 100 // group, group)
    scales = q.scales.numpy().reshape(7, planes, 100 // group)
    a = mf.emulator.quantize(x, "int8-row")
    digits = a.spec.format.grid[a.codes].reshape(5, 100 // group, group)
    acc = np.zeros((5, 7), np.float32)
    for i in range(planes):
        for g in range(100 // group):
            acc = acc + (digits[:, g] @ b[:, i, g].T).astype(np.float32) * scales[:, i, g]
    expected = acc * a.scales + bias
    assert expected.dtype == np.float32
    assert (mf.emulator.binary_coded(x.numpy(), q, planes, bias, "int8-row") == expected).all()
    assert torch.equal(mf.emulator.binary_coded(x, q, planes, bias, "int8-row"), torch.from_numpy(expected))


def test_weight_is_the_sum_of_scaled_signs():
    q = binary_code(torch.randn(3, 32), 2, 16, "bfloat16")
    b, alpha = q.codes.double().numpy() * 2 - 1, q.scales.double().numpy()
    value = lambda n, k: sum(alpha[n, 2 * i + k // 16] * b[n, 32 * i + k] for i in (0, 1))  # noqa: E731
    expected = [[value(n, k) for k in range(32)] for n in range(3)]
    assert (mf.emulator.binary_coded_weight(q, 2) == np.array(expected)).all()


def test_float_is_x_times_the_weight():
    x, q = torch.randn(4, 32).bfloat16(), binary_code(torch.randn(3, 32), 3, 16)
    real = x.double() @ torch.from_numpy(mf.emulator.binary_coded_weight(q, 3)).T
    y = mf.emulator.binary_coded(x, q, 3)
    assert y.dtype == torch.bfloat16 and ((y.double() - real).abs() <= real.abs() * 2.0**-8).all()
