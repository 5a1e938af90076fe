"""BinaryCodedLinear: what it computes, holds and says, how it travels, what it refuses."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import BinaryCodedLinear

EXACT = [
    (1, 32, "float32", "int8-row"),
    (2, 48, "bfloat16", "int8-row"),
    (3, 32, "bfloat16", "int4-row"),
    (3, None, "float32", "int8-tensor"),
    (3, 32, "e8m0", "e2m1-g32-e8m0"),
    (4, 16, "e4m3fn", "nvfp4"),
    (5, 24, "bfloat16", "int8-g12"),
    (8, 96, "bfloat16", "e4m3fn-row"),
]


def make(bits=3, group=32, scale="bfloat16", activation="int8-row", bias=True, shape=(13, 96), seed=0):
    torch.manual_seed(seed)
    linear = nn.Linear(shape[1], shape[0], bias=bias)
    return linear, BinaryCodedLinear.from_float(linear, bits, group, scale, activation)


@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize(("bits", "group", "scale", "activation"), EXACT)
def test_gives_the_bits_of_the_emulator(bits, group, scale, activation, rows):
    _, layer = make(bits, group, scale, activation)
    x = torch.randn(rows, 96)
    for x in (torch.randn(rows, 96), torch.randn(rows, 96).bfloat16()):
        y = layer(x)
        assert y.shape == (rows, 13) and y.dtype == x.dtype
        assert torch.equal(y, mf.emulator.binary_coded(x, layer.qtensor, bits, layer.bias.detach(), activation))


@pytest.mark.parametrize("k", [1, 30, 100])  # planes that begin within a byte
def test_any_number_of_inputs(k):
    _, layer = make(3, None, shape=(5, k))
    x = torch.randn(2, 3, k)
    assert torch.equal(layer(x), mf.emulator.binary_coded(x, layer.qtensor, 3, layer.bias.detach(), "int8-row"))


@pytest.mark.parametrize("rows", [1, 17, 200])
@pytest.mark.parametrize("group", [32, None])
def test_float_activations_stay_within_the_bound(group, rows):
    _, layer = make(3, group, activation=None)
    x, q, bias = torch.randn(rows, 96), layer.qtensor, layer.bias.detach()
    real = x.double() @ torch.from_numpy(mf.emulator.binary_coded_weight(q, 3)).T + bias.double()
    bound = mf.emulator.float_bound(x.repeat(1, 3), q, bias)
    error = np.abs(layer(x).detach().double().numpy() - real.numpy())
    assert (error <= bound).all() and error.max() > 0
    assert torch.equal(mf.emulator.binary_coded(x, q, 3, bias), real.float())


def test_more_planes_come_closer():
    x = torch.randn(5, 96)
    off = [(layer(x) - linear(x)).norm().item() for linear, layer in (make(bits) for bits in (1, 2, 3, 4, 6))]
    assert all(b < 0.7 * a for a, b in zip(off, off[1:], strict=False))


@pytest.mark.parametrize("scale", ["float32", "bfloat16", "e8m0", "e4m3fn"])
def test_holds_the_sum_of_its_planes(scale):
    _, layer = make(3, 32, scale)
    assert layer.weight.dtype == torch.float32 and layer.weight.shape == (13, 96)
    assert torch.equal(layer.weight, torch.from_numpy(mf.emulator.binary_coded_weight(layer.qtensor, 3)).float())
    bits = {"float32": 32, "bfloat16": 16}.get(scale, 8)
    assert layer.nbytes == layer.qtensor.nbytes == 13 * 3 * 12 + 13 * 9 * bits // 8 + 4 * (scale == "e4m3fn")
    assert layer.bits_per_value == 8 * layer.nbytes / (13 * 96) and layer.planes == 3


def test_attributes_and_text():
    linear, layer = make()
    assert (layer.in_features, layer.out_features, layer.matrix_shape) == (96, 13, (13, 96))
    assert layer.bias is linear.bias and layer.training and make(bias=False)[1].bias is None
    assert not BinaryCodedLinear.from_float(linear.eval(), 2, 32).training
    assert repr(layer) == (
        "BinaryCodedLinear(in_features=96, out_features=13, bias=True, weight=binary-g32-bf16, activation=int8-row, "
        "4.5 bits per value in 3 planes)"
    )
    assert dict(layer.named_buffers()).keys() == {"layout"} and dict(layer.named_parameters()).keys() == {"bias"}


@pytest.mark.parametrize("activation", [None, "int8-row"])
def test_gradients_reach_x_and_bias(activation):
    _, layer = make(activation=activation)
    x, grad = torch.randn(2, 3, 96, requires_grad=True), torch.randn(2, 3, 13)
    layer(x).backward(grad)
    torch.testing.assert_close(x.grad, grad @ layer.weight)
    torch.testing.assert_close(layer.bias.grad, grad.sum((0, 1)))


def state_of(layer, x):
    return layer(x), {name: tensor.clone() for name, tensor in layer.state_dict().items()}


def same(a, b):
    return torch.equal(a[0], b[0]) and a[1].keys() == b[1].keys() and all(torch.equal(a[1][k], b[1][k]) for k in b[1])


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("scale", ["bfloat16", "e4m3fn"])
def test_travels(bits, scale):
    x = torch.randn(4, 96)
    _, layer = make(bits, 32, scale)
    before = state_of(layer, x)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    target = make(bits, 32, scale, seed=1)[1]
    assert not same(state_of(target, x), before)
    target.load_state_dict(torch.load(file, weights_only=True))
    for other in (target, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).to("cpu")):
        assert same(state_of(other, x), before) and repr(other) == repr(layer) and other.planes == bits
    assert same(state_of(layer, x), before)
    assert make(bits, 32, scale, seed=1)[1].half().load_state_dict(layer.state_dict()).missing_keys == []


def test_a_state_dict_of_other_planes_is_refused_whole():
    x, (_, target), (_, source) = torch.randn(4, 96), make(2), make(3)
    before = state_of(target, x)
    with pytest.raises(RuntimeError, match=r"weight, binary-g32-bf16 of shape \(13, 192\): .* got .*13, 36"):
        target.load_state_dict(source.state_dict())
    assert same(state_of(target, x), before)


def test_an_input_range_fixes_the_scale_of_x():
    _, layer = make(activation="int8-tensor")
    layer.set_input_range(-2, 2)
    x = torch.randn(6, 96)
    rows = torch.cat([x.clamp(-2, 2), torch.full((1, 96), -2.0), torch.full((1, 96), 2.0)])
    expected = mf.emulator.binary_coded(rows, layer.qtensor, 3, layer.bias.detach(), "int8-tensor")[:6]
    assert torch.equal(layer(x), expected) and torch.equal(layer(x[:1]), expected[:1])


@pytest.mark.parametrize("activation", [None, "int8-row"])
@pytest.mark.parametrize("bits", [1, 3])
def test_compiles_whole(bits, activation):
    torch.compiler.reset()
    layer = make(bits, activation=activation)[1].eval()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for rows in (1, 3, 5):
        xs = [torch.randn(rows, 96, generator=torch.Generator().manual_seed(rows)).requires_grad_() for _ in range(2)]
        y, z = layer(xs[0]), compiled(xs[1])
        y.square().sum().backward()
        z.square().sum().backward()
        assert torch.equal(y, z)
        torch.testing.assert_close(xs[0].grad, xs[1].grad)


def test_compiles_with_inductor():
    torch.compiler.reset()
    layer = make()[1].eval().requires_grad_(False)
    x = torch.randn(3, 96)
    assert torch.equal(torch.compile(layer, fullgraph=True)(x), layer(x))


@pytest.mark.parametrize(
    ("make_it", "error", "message"),
    [
        (lambda: BinaryCodedLinear.from_float(nn.Conv2d(1, 1, 1)), TypeError, "takes an nn.Linear, got Conv2d"),
        (lambda: BinaryCodedLinear.from_float(nn.Linear(64, 4, device="meta")), ValueError, "has no values yet"),
        (lambda: BinaryCodedLinear.from_float(nn.Linear(96, 4)), ValueError, "group 128: take 96, or None"),
        (lambda: BinaryCodedLinear.from_float(nn.Linear(96, 4), 9, 32), ValueError, "1 to 8 planes, got 9"),
        (lambda: make(activation="int8-g36"), ValueError, "activation int8-g36: K=96 is not a multiple"),
        (lambda: make()[1](torch.zeros(2, 288)), ValueError, "x has K=288 but the weight has K=96"),
        (lambda: BinaryCodedLinear(make()[1].qtensor, 5), ValueError, r"5 planes need .* the weight is \(13, 288\)"),
        (lambda: BinaryCodedLinear(make(group=None)[1].qtensor, 2), ValueError, "K=144 is not a multiple .* 96"),
        (lambda: BinaryCodedLinear(mf.quantize(torch.ones(4, 64), "binary-row"), 2), ValueError, "not binary-row"),
        (lambda: BinaryCodedLinear(mf.quantize(torch.ones(4, 64), "int4-g32"), 2), ValueError, "not int4-g32"),
    ],
)
def test_refuses(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()
