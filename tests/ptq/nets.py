"""Small models and data that the post-training tests share."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from minifloat.formats import QuantSpec
from minifloat.nn import selection
from minifloat.ptq.layer import Layer


class Block(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x, scale=1.0):
        return x + scale * self.down(F.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    """Residual blocks in a ModuleList, as in transformers."""

    def __init__(self, width=32, depth=2):
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, 8)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, scale=0.5)
        return self.head(x)


class Cnn(nn.Module):
    """Convolutions with batch norms, one of them depthwise."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 24, 1),
            nn.BatchNorm2d(24),
        )
        self.head = nn.Linear(24, 8)

    def forward(self, x):
        return self.head(self.features(x).relu().mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net().eval()


def cnn():
    """With batch norm statistics and affine weights that are not the initial ones."""
    torch.manual_seed(0)
    model = Cnn()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return model.eval()


def vectors(batches=4, rows=64, width=32, seed=1):
    """Correlated inputs: as in networks, some directions are far larger than others."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) * torch.rand(width, generator=generator) ** 2
    return [torch.randn(rows, width, generator=generator) @ mix for _ in range(batches)]


def images(batches=3, count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [F.avg_pool2d(torch.randn(count, 3, 22, 22, generator=generator), 3, 2) for _ in range(batches)]


def layer_of(module, weight, activation=None):
    """The Layer for a module, as calibrate makes it."""
    found = selection.find_layers(nn.Sequential(module), ("linear", "conv2d"))[0]
    found.weight = QuantSpec.parse(weight)
    found.activation = activation and QuantSpec.parse(activation)
    return Layer(found)


def mse(model, reference, batches):
    return sum(((model(x) - reference(x)) ** 2).mean().item() for x in batches) / len(batches)


def clone(model):
    return copy.deepcopy(model)
