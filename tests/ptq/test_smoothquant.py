"""SmoothQuant: float outputs stay, outliers become harmless, and the searched alpha is the best."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import minifloat as mf
from minifloat.ptq.calibrate import call, plan_layers
from minifloat.ptq.layer import Layer
from minifloat.ptq.run import Run
from minifloat.ptq.smoothquant import SmoothQuant, find_groups
from ptq.nets import clone, cnn, images, mse


class RMSNorm(nn.Module):
    """As libraries of language models write it: a module of their own."""

    def __init__(self, width, offset=0.0):
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.ones(width) - offset), offset

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (self.weight + self.offset)


class Transformer(nn.Module):
    """Attention with q, k, v from one norm, and a gated MLP from another."""

    def __init__(self, offset=0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), RMSNorm(32, offset)
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.o(F.scaled_dot_product_attention(self.q(y), self.k(y), self.v(y)))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def transformer(offset=0.0):
    """With a few channels that the norms make fifty times as large as the others, for weights as much smaller."""
    torch.manual_seed(0)
    model = Transformer(offset)
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.weight[[3, 17]] += 49
        for layer in (model.q, model.k, model.v, model.gate, model.up):
            layer.weight[:, [3, 17]] /= 50
    return model.eval()


def sequences():
    return [torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def run_of(model, batches, activation="int8-row"):
    layers = [Layer(f) for f in plan_layers(model, "int8-row", activation, None, None, ("linear", "conv2d"))]
    return Run(model, batches, layers, call)


@pytest.mark.parametrize("alpha", [None, 0.5, 0.8])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_no_float_output_changes(alpha, offset):
    model, batches = transformer(offset), sequences()
    reference = clone(model)
    run = run_of(model, batches)
    groups = [[layer.name for layer in layers] for _, layers in find_groups(run)]
    assert groups == [["q", "k", "v"], ["gate", "up"], ["down"]]  # nothing takes in a factor for o
    SmoothQuant(alpha).apply(run)
    with torch.no_grad():
        for x in batches:
            y = reference(x)
            assert (model(x) - y).abs().max() < 1e-5 * y.abs().max().clamp(min=1)
    assert not torch.allclose(model.q.weight, reference.q.weight)
    assert not torch.allclose(model.up.weight, reference.up.weight)


def test_factors_are_those_of_the_paper():
    model, batches = transformer(), sequences()
    reference = clone(model)
    SmoothQuant(0.5).apply(run_of(model, batches))
    with torch.no_grad():
        top = reference.norm1(torch.cat(batches)).abs().amax((0, 1))
    weights = torch.stack([getattr(reference, name).weight.abs().amax(0) for name in "qkv"]).amax(0)
    expected = (top / weights).sqrt()
    torch.testing.assert_close(model.q.weight / reference.q.weight, expected.expand(32, 32), rtol=1e-4, atol=0)
    torch.testing.assert_close(reference.norm1.weight / model.norm1.weight, expected, rtol=1e-4, atol=0)


def test_outliers_do_less_harm():
    model, batches = transformer(), sequences()
    with torch.no_grad():
        errors = [
            mse(mf.calibrate(model, batches, recipe, "int8-row", "int8-tensor"), model, batches)
            for recipe in ("", "smoothquant(alpha=0.5)", "smoothquant")
        ]
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[0]


def test_convolutions_are_smoothed_too():
    model, batches = cnn(), images()
    reference = clone(model)
    SmoothQuant(0.5).apply(run_of(model, batches))
    with torch.no_grad():
        assert all((model(x) - reference(x)).abs().max() < 1e-5 for x in batches)


def test_interrupted_runs_keep_the_smoothed_floats(tmp_path, monkeypatch):
    args = (transformer(), sequences(), "smoothquant + gptq", "int4-row", "int8-row")
    whole = mf.calibrate(*args, resume=tmp_path / "r")
    for file in (tmp_path / "r").glob("01-*"):
        file.unlink()  # as if it had been killed between the steps
    monkeypatch.setattr(SmoothQuant, "_factor", None)
    again = mf.calibrate(*args, resume=tmp_path / "r")
    assert torch.equal(whole(sequences()[0]), again(sequences()[0]))


@pytest.mark.parametrize("alpha", ["-1", "2", "'a'"])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="alpha=.* must be a number from 0 to 1"):
        mf.ptq.Recipe.parse(f"smoothquant(alpha={alpha})")


def test_a_published_language_model():
    """Its code is not written for tracing, and its norms and gated MLPs are modules of their own."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, **shape)
    ).eval()
    batches = [{"input_ids": torch.randint(50, (2, 11)), "use_cache": False} for _ in range(2)]
    reference = clone(model)
    run = run_of(model, batches)
    groups = [[layer.name.split(".")[-1] for layer in layers] for _, layers in find_groups(run)]
    assert groups[:3] == [["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    assert len(groups) == 6  # the head sees a slice of what the last norm makes, and keeps its inputs
    SmoothQuant(0.5).apply(run)
    with torch.no_grad():
        assert all((model(**b).logits - reference(**b).logits).abs().max() < 1e-5 for b in batches)
    q = mf.calibrate(reference, batches, "smoothquant(alpha=0.5) + gptq", "int4-row", "int8-row")
    assert q(**batches[0]).logits.isfinite().all()
