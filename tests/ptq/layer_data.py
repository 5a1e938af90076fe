"""Weights and inputs for the tests of methods that work on one layer."""

import torch

from minifloat.ptq.errors import gram_of


def correlated(n=48, k=96, m=512, seed=0):
    """w (n, k), x (m, k) with correlated columns of unlike sizes, as after a ReLU, and the gram of x."""
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=rng) / k**0.5
    mix = torch.randn(k, k, generator=rng) / k**0.5
    x = torch.randn(m, k, generator=rng) @ mix * torch.exp(0.7 * torch.randn(k, generator=rng))
    x = x.relu() + 0.1 * x
    return w, x, gram_of(x)


def output_error(w, q, x):
    """Mean over the rows of x of the squared output error, from the definition, in float64."""
    return ((x.double() @ (q.dequantize().double() - w.double()).T) ** 2).sum().item() / len(x)


def spread(kind, n=32, k=64, seed=0):
    """float32 (n, k) with light or heavy tails: "uniform", "normal", "student" (3 degrees of freedom)."""
    rng = torch.Generator().manual_seed(seed)
    if kind == "uniform":
        return torch.rand(n, k, generator=rng) * 2 - 1
    normal = torch.randn(n, k, generator=rng)
    if kind == "normal":
        return normal
    return normal / (torch.randn(3, n, k, generator=rng).square().mean(0)).sqrt()


class TwoKinds(torch.nn.Module):
    """Two linear layers: uniform weights, and heavy-tailed ones after a ReLU."""

    def __init__(self):
        super().__init__()
        self.uniform, self.heavy = torch.nn.Linear(64, 48), torch.nn.Linear(48, 32)
        with torch.no_grad():
            self.uniform.weight.copy_(spread("uniform", 48, 64) / 8)
            self.heavy.weight.copy_(spread("student", 32, 48) / 8)

    def forward(self, x):
        return self.heavy(self.uniform(x).relu())


def two_kinds():
    """The model and three batches for it."""
    torch.manual_seed(0)
    return TwoKinds().eval(), [torch.randn(40, 64) for _ in range(3)]
