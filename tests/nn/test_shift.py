"""Layers whose input is shifted before it is rounded: the emulator's bits for the shifted x, stored and loaded."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QConv2d, QLinear

SHIFT = torch.linspace(-1, 2, 64)


def make(activation="e2m1-row"):
    torch.manual_seed(0)
    return QLinear.from_float(nn.Linear(64, 12), "int4-g32", activation)


@pytest.mark.parametrize("activation", ["int4-row", "ue2m2-row", "e2m1-g32-e8m0", "int8-row-zp"])
def test_computes_what_the_emulator_says_for_the_shifted_input(activation):
    layer, x = make(activation), torch.randn(2, 5, 64)
    before = layer(x)
    layer.set_input_shift(SHIFT)
    expected = mf.emulator.linear((x - SHIFT).reshape(-1, 64), layer.qtensor, layer.bias, activation)
    assert torch.equal(layer(x).reshape(-1, 12), expected) and not torch.equal(layer(x), before)


def test_with_a_fixed_range_the_shifted_input_is_clipped():
    layer, same = make("int8-tensor"), make("int8-tensor")
    layer.set_input_shift(SHIFT)
    for one in (layer, same):
        one.set_input_range(-0.5, 1)
    x = torch.randn(7, 64)
    assert torch.equal(layer(x), same((x - SHIFT).clamp(-0.5, 1)))


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_shift_their_channels(groups):
    conv = QConv2d.from_float(nn.Conv2d(8, 6, 1, groups=groups), "int8-row", "int4-row")
    x, shift = torch.randn(2, 8, 5, 5), torch.arange(8.0)
    expected = conv(x - shift[:, None, None])
    conv.set_input_shift(shift)
    assert torch.equal(conv(x), expected) and torch.equal(conv(x[0]), expected[0])


def test_what_cannot_be_shifted_is_refused():
    with pytest.raises(ValueError, match="does not go with inputs that stay float"):
        make(None).set_input_shift(SHIFT)
    with pytest.raises(ValueError, match=r"input_shift is torch.float32 \(3,\), expected floats \(64,\)"):
        make().set_input_shift(torch.zeros(3))
    for shift in (torch.full((64,), torch.nan), torch.zeros(1, 64)):
        with pytest.raises(ValueError, match=r"finite floats \(channels,\)"):
            make().set_input_shift(shift)
    for conv in (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, padding=1)):
        with pytest.raises(ValueError, match="zeros of the padding cannot be shifted"):
            QConv2d.from_float(conv, "int8-row", "int8-row").set_input_shift(torch.zeros(4))
    with pytest.raises(ValueError, match="has 3 values, but there are 4 input channels"):
        QConv2d.from_float(nn.Conv2d(4, 4, 1), "int8-row", "int8-row").set_input_shift(torch.zeros(3))


def test_state_dicts_and_checkpoints_carry_the_shift(tmp_path):
    layer, other, x = make(), make(), torch.randn(3, 64)
    layer.set_input_shift(SHIFT)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x)) and "shifted" in repr(other)
    state = layer.state_dict()
    with pytest.raises(RuntimeError, match="input_shift is .*expected floats"):
        layer.load_state_dict(state | {"input_shift": torch.zeros(5)})
    del state["input_shift"]
    with pytest.raises(RuntimeError, match="Missing key.*input_shift"):
        layer.load_state_dict(state)
    mf.save(nn.Sequential(layer), tmp_path / "m.safetensors")
    loaded = mf.load(nn.Sequential(nn.Linear(64, 12)), tmp_path / "m.safetensors")
    assert torch.equal(loaded(x), layer(x))


def test_half_precision_and_compile_and_gradients():
    layer = make()
    layer.set_input_shift(SHIFT)
    x = torch.randn(3, 64, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 64))
    assert torch.equal(torch.compile(layer, fullgraph=True)(x), layer(x))
    half = layer.half()
    assert half(x.half()).dtype == torch.float16 and half.input_shift.dtype == torch.float32
