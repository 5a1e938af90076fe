"""AWQ: scales that lower the output error, folded so that the float model stays what it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import minifloat as mf
from minifloat.nn import selection
from minifloat.ptq import calibrate
from minifloat.ptq.awq import AWQ, search_scales
from minifloat.ptq.data import call
from minifloat.ptq.foldable import find_folds
from minifloat.ptq.layer import Layer
from minifloat.ptq.run import Run
from minifloat.ptq.smoothquant import rounding_error
from ptq.layer_data import output_error
from ptq.nets import cnn, images, layer_of, mse, net, vectors


class GatedBlock(nn.Module):
    """Attention and a gated perceptron behind norms, as in LLaMA."""

    def __init__(self, width=32):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, x):
        h = self.norm1(x)
        q, k, v = (f(h).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Gated(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Linear(width, width)
        self.blocks = nn.ModuleList([GatedBlock(width) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 8)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gated():
    """With a few input channels far larger than the others, as in language models."""
    torch.manual_seed(0)
    model = Gated().eval()
    with torch.no_grad():
        for block in model.blocks:
            for norm in (block.norm1, block.norm2):
                norm.weight.copy_(torch.rand(32) + 0.5)
                norm.weight[::8] *= 20
    return model


def sequences():
    return [x.reshape(4, 16, 32) for x in vectors()]


def run_of(model, batches, weight="int4-row"):
    """A Run of all layers, as calibrate makes it."""
    layers = selection.find_layers(model, ("linear", "conv2d"))
    for layer in layers:
        layer.weight = mf.QuantSpec.parse(weight)
    with torch.no_grad():
        return Run(model, batches, [Layer(one) for one in layers], call)


def named(model, module):
    return next((name for name, m in model.named_modules() if m is module), None)


def test_folds_of_a_gated_transformer():
    model = gated()
    with torch.no_grad():
        folds = find_folds(run_of(model, sequences()))
    found = {tuple(layer.name for layer in fold.layers): named(model, fold.producer) for fold in folds}
    expected = {("head",): "norm"}
    for b in ("blocks.0.", "blocks.1."):
        expected |= {
            (f"{b}q", f"{b}k", f"{b}v"): f"{b}norm1",
            (f"{b}o",): f"{b}v",
            (f"{b}gate", f"{b}up"): f"{b}norm2",
            (f"{b}down",): f"{b}up",
        }
    assert found == expected


def test_nothing_is_folded_through_a_gelu_or_into_what_others_read():
    model = net()  # up, gelu, down; the residual stream feeds the norms
    with torch.no_grad():
        folds = find_folds(run_of(model, vectors()))
    found = {fold.layers[0].name: named(model, fold.producer) for fold in folds}
    assert found == {"blocks.0.up": "blocks.0.norm", "blocks.1.up": "blocks.1.norm"}


def test_a_norm_whose_output_is_read_twice_is_left_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(32), nn.Linear(32, 32)

        def forward(self, x):
            h = self.norm(x)
            return h + self.layer(h)

    with torch.no_grad():
        assert find_folds(run_of(Twice(), vectors())) == []


@pytest.mark.parametrize("made", [(gated, sequences), (net, vectors), (cnn, images)])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_the_float_model_stays_what_it_was(made, power_of_two):
    model, batches = made[0](), made[1]()
    references = [model(x) for x in batches]
    run = run_of(model, batches)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        AWQ(power_of_two=power_of_two).apply(run)
        for x, reference in zip(batches, references, strict=True):
            error = (model(x) - reference).abs().max()
            assert error <= (1e-6 if power_of_two else 1e-5) * reference.abs().max()
    if made[0] is gated:
        assert any((p != q).any() for p, q in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("weight, activation", [("int3-row", None), ("e2m1-g16", None), ("int4-row", "int8-row")])
def test_the_quantized_model_gets_nearer(weight, activation):
    model, batches = gated(), sequences()
    nearest, found = (mse(calibrate(model, batches, r, weight, activation), model, batches) for r in ("", "awq"))
    assert found < 0.8 * nearest


def test_the_best_scales_are_never_worse_than_none():
    torch.manual_seed(0)
    x = torch.randn(256, 32) * torch.logspace(-1, 1, 32)
    for spec in ("int3-row", "e2m1-g16-e8m0", "nf4-row", "e3m0-tensor"):
        layer = layer_of(nn.Linear(32, 24), spec)
        s, errors = search_scales(x.abs().mean(0), lambda s, layer=layer: rounding_error(layer, x[None], s))
        assert len(errors) == 20
        assert errors[0] == pytest.approx(len(x) * output_error(layer.matrix, layer.nearest(), x), rel=1e-4)
        best = mf.quantize((layer.matrix * s).float(), spec)
        direct = ((x @ (best.dequantize() / s.float() - layer.matrix).T) ** 2).sum().item()
        assert direct == pytest.approx(min(errors), rel=1e-3)
        assert min(errors) <= errors[0]


def test_channels_that_are_always_zero():
    s, errors = search_scales(torch.tensor([0.0, 1.0, 4.0]), lambda s: -s.max().item())
    assert s.isfinite().all() and (s > 0).all()
    s, _ = search_scales(torch.zeros(3), lambda s: 0.0)
    assert torch.equal(s, torch.ones(3).double())
    with pytest.raises(ValueError, match="points=0"):
        AWQ(points=0)
