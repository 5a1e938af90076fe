"""What the checkpoint tests save and load, and how they look at it."""

import pytest
import torch
from torch import nn

import minifloat as mf

X = torch.linspace(-1, 1, 3 * 64).reshape(3, 64)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 64, bias=False)
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 10)
        self.register_buffer("scratch", torch.rand(2), persistent=False)

    def forward(self, x):
        return self.head(self.norm(self.b(self.a(x)).relu()))


OVERRIDES = {"b": {"weight": "uint4-g32-bf16-zp", "activation": None}, "head": {"weight": "nvfp4"}}


def net(seed=0):
    torch.manual_seed(seed)
    model = Net().eval()
    with torch.no_grad():
        model.norm.running_mean.uniform_()
    return model


def quantized(seed=0):
    return mf.quantize_(net(seed), "e2m1-g32-e8m0", "int8-row", overrides=OVERRIDES)


def fingerprint(model):
    """Modules and tensors by identity, and the values: what must not change when a load fails."""
    modules = [(name, id(module)) for name, module in model.named_modules()]
    state = model.state_dict(keep_vars=True)
    ids = [(name, id(t)) for name, t in (*model.named_parameters(), *model.named_buffers())]
    return modules, ids, {name: t.detach().float().sum().item() for name, t in state.items() if not t.is_meta}


def assert_refused(model, path, text):
    """load raises ValueError that names the file and has this text, and leaves the model as it was."""
    before = fingerprint(model)
    with pytest.raises(ValueError, match=text) as raised:
        mf.load(model, path)
    assert str(raised.value).startswith(f"load: {path}: ")
    assert fingerprint(model) == before


def assert_holds(model, source):
    assert torch.equal(model(X), source(X))
    state, expected = model.state_dict(), source.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in state)
    assert repr(model) == repr(source)
