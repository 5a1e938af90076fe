"""Hessian traces against Hessians worked out in full."""

import pytest
import torch

from minifloat.ptq.sensitivity import divergence, hessian_traces


def test_exact_where_the_hessian_is_diagonal():
    a, b = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    curvature = torch.arange(12.0).reshape(3, 4)
    found = hessian_traces(lambda: (curvature * a**2 + b**4).sum(), [a, b], 1, torch.Generator().manual_seed(0))
    assert found[0] == pytest.approx(2 * curvature.sum().item(), rel=1e-5)
    assert found[1] == pytest.approx(12 * b.detach().square().sum().item(), rel=1e-5)


def test_approaches_the_trace_of_a_network():
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    weights = [(0.5 * torch.randn(6, 5)).requires_grad_(), (0.5 * torch.randn(3, 6)).requires_grad_()]

    def loss(first=weights[0], second=weights[1]):
        return torch.nn.functional.cross_entropy(torch.tanh(x @ first.T) @ second.T, torch.arange(40) % 3)

    found = hessian_traces(loss, weights, 2000, torch.Generator().manual_seed(1))
    blocks = torch.autograd.functional.hessian(loss, tuple(weights))
    for i, estimate in enumerate(found):
        n = weights[i].numel()
        assert estimate == pytest.approx(blocks[i][i].reshape(n, n).trace().item(), rel=0.1)


def test_divergence_is_least_at_the_reference():
    reference = torch.randn(8, 5)
    assert divergence(reference, reference).item() == pytest.approx(0, abs=1e-6)
    moved = reference.clone().requires_grad_()
    slope = torch.autograd.grad(divergence(moved, reference), moved)[0]
    assert slope.abs().max() < 1e-6
    assert divergence(reference + torch.randn(8, 5), reference) > 0.01
