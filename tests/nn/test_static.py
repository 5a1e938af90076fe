"""Layers with a fixed input range: clipped and scaled alike for every x, and still the emulator's bits."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QConv2d, QLinear

RANGE = (-1.5, 2.0)


def make(activation):
    torch.manual_seed(0)
    layer = QLinear.from_float(nn.Linear(64, 12), "int4-g32", activation)
    layer.set_input_range(*RANGE)
    return layer


@pytest.mark.parametrize("activation", ["int8-tensor", "uint8-tensor-zp", "e2m1-tensor", "int4-tensor-e8m0"])
def test_computes_what_the_emulator_says_for_the_fixed_scale(activation):
    layer, spec = make(activation), mf.QuantSpec.parse(activation)
    x = 2 * torch.randn(2, 5, 64)
    ends = mf.emulator.quantize(torch.tensor([RANGE]).numpy(), spec)
    clipped = x.clamp(*RANGE).reshape(-1, 64).numpy()
    if spec.zero_point:
        grid = (clipped / ends.scales).round() + ends.zero_points
        codes = grid.clip(spec.format.min, spec.format.max).astype("uint8")
    else:
        codes = spec.format.encode(clipped / ends.scales)
    # The same codes and scale, written as a matrix that is dequantized exactly, times the weight in float64.
    a = mf.emulator.Quantized(spec, codes, ends.scales, ends.zero_points, None)
    expected = mf.emulator.linear(mf.emulator.dequantize(a).astype("float32"), layer.qtensor, layer.bias.detach())
    torch.testing.assert_close(layer(x).reshape(-1, 12), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    rows = torch.cat([x.clamp(*RANGE).reshape(-1, 64), torch.tensor(RANGE)[:, None].expand(2, 64)])
    exact = mf.emulator.linear(rows, layer.qtensor, layer.bias, spec)[:-2]
    assert torch.equal(layer(x).reshape(-1, 12), exact)


@pytest.mark.parametrize("activation", ["int8-tensor", "nvfp4"])
def test_a_result_does_not_depend_on_the_rest_of_the_batch(activation):
    layer, free = make(activation), make(activation)
    free.input_range = None
    x = torch.randn(6, 64)
    x[5] *= 20
    assert torch.equal(layer(x)[:2], layer(x[:2]))
    assert not torch.equal(free(x)[:2], free(x[:2]))


def test_convolutions_share_the_scale():
    conv = QConv2d.from_float(nn.Conv2d(8, 8, 3, groups=8, padding=1), "int8-row", "int8-tensor")
    conv.set_input_range(-1, 1)
    x = torch.randn(3, 8, 6, 6)
    assert torch.equal(conv(x)[:1], conv(x[:1])) and torch.equal(conv(x.clamp(-1, 1)), conv(x))


def test_ranges_include_zero_and_are_checked():
    layer = make("int8-tensor")
    layer.set_input_range(0.5, 2)
    assert layer.input_range.tolist() == [0, 2] and "int8-tensor in [0, 2]" in repr(layer)
    for low, high in ((1, 0), (float("nan"), 1), (0, float("inf"))):
        with pytest.raises(ValueError, match="must be finite and in order"):
            layer.set_input_range(low, high)
    for activation in (None, "int8-row"):
        with pytest.raises(ValueError, match="needs an activation with one scale, such as int8-tensor"):
            make(activation)


def test_state_dicts_carry_the_range():
    layer, other = make("int8-tensor"), QLinear.from_float(nn.Linear(64, 12), "int4-g32", "int8-tensor")
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 64)
    assert torch.equal(other(x), layer(x)) and other.input_range.tolist() == list(RANGE)
    state = layer.state_dict()
    del state["input_range"]
    with pytest.raises(RuntimeError, match="Missing key.*input_range"):
        layer.load_state_dict(state)
    with pytest.raises(RuntimeError, match="input_range is .*expected two finite floats around 0"):
        layer.load_state_dict(state | {"input_range": torch.tensor([1.0, 2.0])})
    with pytest.raises(RuntimeError, match="input_range does not go with the activation int8-row"):
        QLinear.from_float(nn.Linear(64, 12), "int4-g32", "int8-row").load_state_dict(layer.state_dict())
