"""QEmbedding: rows of the dequantized weight, by index."""

import copy
import pickle

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QEmbedding, QLinear

SPECS = ["e2m1-g32-e8m0", "uint4-g32-bf16-zp", "nvfp4", "int3-row", "nf4-g64", "e4m3fn-tensor", "int4-tensor-zp"]
INDEX = torch.tensor([[0, 39], [7, 7], [13, 1]])


def make(spec="int4-g32", **kwargs):
    torch.manual_seed(0)
    embedding = nn.Embedding(40, 64, **kwargs)
    return embedding, QEmbedding.from_float(embedding, spec)


@pytest.mark.parametrize("spec", SPECS)
def test_gives_rows_of_the_dequantized_weight(spec):
    embedding, layer = make(spec)
    expected = mf.quantize(embedding.weight.detach(), spec)
    assert torch.equal(layer(INDEX), expected.dequantize()[INDEX])
    assert torch.equal(layer.weight, expected.dequantize())
    assert layer(torch.tensor(3)).shape == (64,) and layer(torch.zeros(0, dtype=torch.long)).shape == (0, 64)
    assert torch.equal(layer.qtensor.packed, expected.packed)


@pytest.mark.parametrize("spec", SPECS)
def test_travels_like_the_other_layers(spec, tmp_path):
    _, layer = make(spec)
    y = layer(INDEX)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(INDEX), y)
    other = QEmbedding.from_float(nn.Embedding(40, 64), spec)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(INDEX), y)
    mf.save(nn.Sequential(layer), tmp_path / "m")
    model = mf.load(nn.Sequential(nn.Embedding(40, 64)), tmp_path / "m")
    assert type(model[0]) is QEmbedding and torch.equal(model(INDEX), y)
    assert torch.equal(mf.load(nn.Sequential(other), tmp_path / "m")(INDEX), y)


def test_output_dtype_follows_the_module():
    embedding, layer = make(padding_idx=2)
    assert layer.padding_idx == 2
    assert layer.half()(INDEX).dtype == torch.float16 and layer.float()(INDEX).dtype == torch.float32
    assert QEmbedding.from_float(embedding.bfloat16(), "int4-row")(INDEX).dtype == torch.bfloat16
    assert copy.deepcopy(layer.bfloat16())(INDEX).dtype == torch.bfloat16


@pytest.mark.parametrize("index", [-1, 40])
def test_refuses_indices_out_of_range(index):
    with pytest.raises((IndexError, RuntimeError), match="index out of range"):
        make()[1](torch.tensor([index]))


def test_quantize_takes_embeddings_only_if_asked():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(40, 64)
            self.head = nn.Linear(64, 40)

        def forward(self, x):
            return self.head(self.embed(x))

    model = mf.quantize_(Language(), "int8-row", "int8-row")
    assert type(model.embed) is nn.Embedding and type(model.head) is QLinear
    model = mf.quantize_(Language(), "int8-row", "int8-row", kinds=["linear", "embedding"])
    assert type(model.embed) is QEmbedding and model.embed.activation is None and type(model.head) is QLinear
    model = mf.calibrate(Language(), [INDEX], "", "int4-row", kinds=["linear", "embedding"])
    assert type(model.embed) is QEmbedding and model(INDEX).isfinite().all()
    with pytest.raises(ValueError, match="kinds: 'lstm' is none of linear, conv2d, embedding"):
        mf.quantize_(Language(), "int8-row", kinds=["lstm"])
    renormed = nn.Sequential(nn.Embedding(4, 8, max_norm=1.0), nn.Linear(8, 8))
    with pytest.warns(UserWarning, match="'0': max_norm rescales its weight at each call"):
        mf.quantize_(renormed, "int8-row", kinds=["linear", "embedding"])


def test_tied_to_a_head_both_are_quantized():
    model = nn.ModuleDict({"embed": nn.Embedding(40, 64), "head": nn.Linear(64, 40, bias=False)})
    model["head"].weight = model["embed"].weight
    expected = mf.quantize(model["head"].weight.detach(), "int4-g32").dequantize()
    mf.quantize_(model, "int4-g32", kinds=["linear", "embedding"])
    assert torch.equal(model["embed"].weight, expected) and torch.equal(model["head"].weight, expected)
