"""quantize_: layers that cannot be quantized as asked are named, and nothing changes."""

import warnings

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QLinear
from nn.nets import NAMES, X, assert_fails, net, specs


def test_a_k_that_does_not_fit_is_named_before_anything_changes():
    text = (
        r"nothing was changed, because 'layers.0.up' has K=64, which is not a multiple of the group size 48 of the "
        r"weight int4-g48: use a group size that divides 64, such as 32, or '-row', or leave it out with "
        r"overrides={'layers.0.up': None}\n.*'layers.1.up' has K=64.*\n.*'head' has K=64"
    )
    assert_fails(net(), text, "int4-g48")
    assert_fails(
        net(),
        "'head' has K=64, .* group size 128 of the activation int8-g128: .* such as 64,",
        "int4-row",
        overrides={"head": {"activation": "int8-g128"}},
    )


def test_many_problems_are_summed_up():
    model = nn.Sequential(*[nn.Linear(50, 50) for _ in range(9)])
    assert_fails(model, "'4' has K=50(.|\n)*and 4 more like these$", "int4-g32")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_weight_that_is_no_number_is_named_and_nothing_changes(value):
    model = net()
    with torch.no_grad():
        model.head.weight[3, 7] = value
    assert_fails(model, f"nothing was changed, because of 'head': .*{value}.*3, 7", "int8-row")


def test_a_quantized_layer_is_not_quantized_twice():
    model = mf.quantize_(net(), "int8-row", select="head")
    assert_fails(model, "'head' is already quantized to int8-row: .* overrides={'head': None}", "int4-row")
    mf.quantize_(model, "int4-row", overrides={"head": None})
    assert specs(model) == {name: ("int8-row" if name == "head" else "int4-row", None) for name in NAMES}


def test_layers_without_values_are_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(32, 32))
    assert_fails(model, "'0' has no values yet .*meta device", "int8-row")
    lazy = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ValueError, match="'0' has no values yet"):
        mf.quantize_(lazy, "int8-row")
    assert type(lazy[0]) is nn.LazyLinear


def test_float64_is_refused():
    assert_fails(nn.Sequential(nn.Linear(32, 8)).double(), "'0' has a weight of torch.float64: convert it", "int8-row")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_models(dtype):
    model = mf.quantize_(net().to(dtype), "int8-row")
    assert model.head.bias.dtype == dtype
    y = model.head(X.to(dtype))
    assert y.dtype == dtype and y.isfinite().all()


def test_a_model_that_is_a_linear_itself():
    with pytest.raises(ValueError, match="a Linear cannot replace itself: use mf.nn.QLinear.from_float"):
        mf.quantize_(nn.Linear(32, 8), "int8-row")
    with pytest.raises(ValueError, match="a QLinear cannot replace itself"):
        mf.quantize_(QLinear.from_float(nn.Linear(32, 8), "int8-row"), "int8-row")
    with pytest.raises(ValueError, match="ReLU has no nn.Linear"):
        mf.quantize_(nn.ReLU(), "int8-row")


def test_empty_layers():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element")
        model = nn.Sequential(nn.Linear(64, 0), nn.Linear(0, 4))
    mf.quantize_(model, "int4-g32")
    assert model[0](X).shape == (5, 0)
    assert torch.equal(model[1](torch.zeros(2, 0)), model[1].bias.expand(2, 4))
