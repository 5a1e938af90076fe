"""QLinear as a layer: what it computes, what it keeps, what it says and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QLinear

SPECS = [
    ("e2m1-g32-e8m0", "int8-row"),
    ("e2m1-g32-e8m0", "e2m1-g32-e8m0"),
    ("uint4-g32-bf16-zp", "int8-row"),
    ("nvfp4", "nvfp4"),
    ("int4-g32", None),
    ("nf4-g64", None),
    ("e4m3fn-tensor", None),
    ("ternary-row", None),
]


def make(weight="e2m1-g32-e8m0", activation=None, bias=True, shape=(12, 64)):
    """A float layer and the QLinear made from it."""
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0], bias=bias)
    return linear, QLinear.from_float(linear, weight, activation)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("weight", "activation"), SPECS)
def test_computes_what_the_emulator_says(weight, activation, bias):
    linear, layer = make(weight, activation, bias)
    x = torch.randn(2, 3, 64)
    y, expected = layer(x), mf.emulator.linear(x, mf.quantize(linear.weight.detach(), weight), linear.bias, activation)
    assert y.shape == (2, 3, 12) and y.dtype == torch.float32
    if activation is not None:
        assert torch.equal(y, expected)
    else:
        bound = mf.emulator.float_bound(x.reshape(-1, 64), layer.qtensor, layer.bias).reshape(2, 3, 12)
        error = np.abs(y.detach().numpy().astype(np.float64) - expected.numpy())
        assert (error <= bound + np.abs(expected.numpy()) * 2**-24).all()


def test_is_close_to_the_float_layer_it_replaces():
    linear, layer = make("int8-row")
    x = torch.randn(5, 64)
    assert (layer(x) - linear(x)).abs().max() < 0.02 * linear(x).abs().max()


def test_attributes_of_nn_linear():
    linear, layer = make()
    assert (layer.in_features, layer.out_features) == (64, 12)
    assert layer.bias is linear.bias and isinstance(layer.bias, nn.Parameter)
    assert make(bias=False)[1].bias is None
    assert layer.training and not QLinear.from_float(linear.eval()).training


def test_default_is_mxfp4_weight_only():
    layer = QLinear.from_float(nn.Linear(32, 4))
    assert str(layer.spec) == "e2m1-g32-e8m0" and layer.activation is None


@pytest.mark.parametrize("spec", ["e2m1-g32-e8m0", "uint4-g32-bf16-zp", "nvfp4", "dynamic8-row"])
def test_weight_is_the_dequantized_weight(spec):
    linear, layer = make(spec)
    expected = mf.quantize(linear.weight.detach(), spec).dequantize()
    assert layer.weight.dtype == torch.float32 and torch.equal(layer.weight, expected)
    layer.weight.zero_()  # a copy
    assert torch.equal(layer.weight, expected)
    with pytest.raises(AttributeError):
        layer.weight = torch.zeros(12, 64)
    with pytest.raises(KeyError, match="weight"):
        layer.weight = nn.Parameter(torch.zeros(12, 64))


def test_repr_tells_both_specs_and_the_size():
    text = repr(make("e2m1-g32-e8m0", "int8-row")[1])
    assert text == (
        "QLinear(in_features=64, out_features=12, bias=True, weight=e2m1-g32-e8m0, activation=int8-row, "
        "4.25 bits per value)"
    )
    assert "activation=None" in repr(make()[1]) and "bias=False" in repr(make(bias=False)[1])


def test_keeps_only_the_layout_in_memory():
    _, layer = make("e2m1-g32-e8m0", "int8-row", shape=(64, 128))
    assert dict(layer.named_parameters()).keys() == {"bias"}
    assert dict(layer.named_buffers()).keys() == {"layout"} and layer.layout.dtype == torch.uint8
    assert layer.plan.device.type == "cpu" and layer.plan.dtype == torch.uint8
    held = [
        *vars(layer).values(),
        *vars(layer.prepared).values(),
        *layer._buffers.values(),
        *layer._parameters.values(),
    ]
    tensors = [item for item in held if isinstance(item, torch.Tensor)]
    assert {id(t) for t in tensors} == {id(layer.layout), id(layer.plan), id(layer.bias)}


def test_from_qtensor_takes_a_parameter_or_a_plain_bias():
    linear, layer = make("int4-g32", "int8-row")
    q = mf.quantize(linear.weight.detach(), "int4-g32")
    same = QLinear.from_qtensor(q, linear.bias, "int8-row")
    assert same.bias is linear.bias
    plain = QLinear.from_qtensor(q, linear.bias.detach().clone(), mf.QuantSpec.parse("int8-row"))
    assert isinstance(plain.bias, nn.Parameter)
    x = torch.randn(3, 64)
    assert torch.equal(same(x), layer(x)) and torch.equal(plain(x), layer(x))
    assert QLinear.from_qtensor(q).bias is None


def test_gradients_reach_x_and_bias():
    linear, layer = make("int4-g32", "int8-row")
    x = torch.randn(2, 3, 64, requires_grad=True)
    grad_y = torch.randn(2, 3, 12)
    layer(x).backward(grad_y)
    torch.testing.assert_close(x.grad, grad_y @ layer.weight)
    torch.testing.assert_close(layer.bias.grad, grad_y.sum((0, 1)))
    assert layer.bias is linear.bias
    layer.requires_grad_(False)
    assert not layer(x.detach()).requires_grad


def test_a_loaded_qtensor_is_not_touched_by_later_changes():
    _, layer = make("int8-row")
    q = mf.quantize(torch.randn(12, 64), "int8-row")
    before = q.packed.clone()
    tied = QLinear.from_qtensor(q)
    tied.load_state_dict(QLinear.from_qtensor(layer.qtensor).state_dict())
    assert torch.equal(q.packed, before)


@pytest.mark.parametrize(
    ("make_it", "error", "text"),
    [
        (lambda: QLinear.from_float(nn.Conv2d(1, 1, 1)), TypeError, "takes an nn.Linear, got Conv2d"),
        (lambda: QLinear.from_float(nn.Linear(100, 4)), ValueError, "K=100 is not a multiple of the group size 32"),
        (lambda: QLinear.from_float(nn.Linear(16, 4)), ValueError, "K=16 is smaller than the group size 32"),
        (lambda: QLinear.from_float(nn.Linear(64, 4), "int3"), ValueError, "does not say where scales live"),
        (lambda: QLinear.from_float(nn.Linear(64, 4), "e9m9-row"), ValueError, "e9m9"),
        (
            lambda: QLinear.from_float(nn.Linear(64, 4), "int4-row", "int8-g48"),
            ValueError,
            "activation int8-g48: K=64 is not a multiple of the group size 48",
        ),
        (lambda: QLinear.from_float(nn.Linear(64, 4, device="meta")), ValueError, "has no values yet"),
        (lambda: QLinear.from_float(nn.LazyLinear(4)), ValueError, "has no values yet"),
        (lambda: QLinear.from_float(nn.Linear(64, 4), "int4-row", "int8-row-mse"), ValueError, "drop '-mse'"),
        (
            lambda: QLinear.from_qtensor(mf.quantize(torch.ones(4, 64), "int8-row"), torch.zeros(5)),
            ValueError,
            r"bias is torch.float32 \(5,\), but out_features=4 takes \(4,\) floats",
        ),
        (
            lambda: QLinear.from_qtensor(mf.quantize(torch.ones(4, 64), "int8-row"), torch.zeros(4, dtype=torch.int64)),
            ValueError,
            "bias is torch.int64",
        ),
    ],
)
def test_refuses(make_it, error, text):
    with pytest.raises(error, match=text):
        make_it()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_weights_that_are_no_numbers(value):
    linear = nn.Linear(64, 4)
    with torch.no_grad():
        linear.weight[2, 5] = value
    with pytest.raises(ValueError, match=rf"{value}.*\(?2, 5\)?"):
        QLinear.from_float(linear)


def test_refuses_x_of_another_width():
    with pytest.raises((ValueError, RuntimeError), match="63.*64|64.*63"):
        make()[1](torch.randn(2, 63))
