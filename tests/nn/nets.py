"""What the quantize_ tests change, and how they look at it."""

import warnings

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QLinear


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(64, 96)
        self.down = nn.Linear(96, 64, bias=False)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


NAMES = ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down", "head"]
X = torch.linspace(-1, 1, 5 * 64).reshape(5, 64)


def net():
    torch.manual_seed(0)
    return Net().eval()


def specs(model):
    found = {name: module for name, module in model.named_modules() if isinstance(module, QLinear)}
    return {name: (str(layer.spec), layer.activation and str(layer.activation)) for name, layer in found.items()}


def fingerprint(model):
    """Every module and tensor of the model by identity and value."""
    modules = [(name, id(module), type(module)) for name, module in model.named_modules(remove_duplicate=False)]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return modules, {name: (id(t), t.sum().item() if not t.is_meta else None) for name, t in tensors.items()}


def assert_fails(model, text, *args, **kwargs):
    """quantize_ raises ValueError with this text and leaves the model as it was."""
    before = fingerprint(model)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=text):
        warnings.simplefilter("ignore")
        mf.quantize_(model, *args, **kwargs)
    after = fingerprint(model)
    assert str(after) == str(before)
