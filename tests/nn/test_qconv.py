"""QConv2d: the emulator's bits for every geometry, and what it takes and refuses."""

import copy
import pickle

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QConv2d
from minifloat.nn.conv import patches

GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": 3, "padding": 1, "groups": 8, "stride": 2},  # depthwise
    {"kernel_size": 1, "groups": 4},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "groups": 8},
]
SPECS = [("int4-row", "int8-row"), ("e2m1-row", "e3m2-tensor"), ("int8-tensor", "uint8-tensor-zp")]
FEW = [("e4m3fn-row", "e4m3fn-row"), ("e5m2-row", "e5m2-tensor"), ("uint4-row-zp", "int8-row-bf16")]


def make(geometry, channels=8, out=16, bias=True):
    torch.manual_seed(0)
    return nn.Conv2d(channels, out, bias=bias, **geometry)


def expected(conv, layer, x):
    """The emulator on each group's patches; one activation scale for all groups where the spec says tensor."""
    rows, q = patches(x, conv), layer.qtensor
    n = conv.out_channels // conv.groups
    ends = torch.stack([rows.amin(), rows.amax()])[:, None].expand(2, rows.shape[2])
    weight = mf.emulator.quantize(conv.weight.detach().flatten(1), layer.spec)
    out = []
    for g in range(conv.groups):
        part = slice(g * n, (g + 1) * n)
        of_group = [
            v if v is None or v.shape[0] == 1 and q.spec.granularity == "tensor" else v[part]
            for v in (weight.scales, weight.zero_points)
        ]
        one = mf.emulator.Quantized(q.spec, weight.codes[part], *of_group, weight.tensor_scale)
        bias = None if conv.bias is None else conv.bias[part]
        given = torch.cat([rows[g], ends])  # the extremes do not change what a row's own scale is
        out.append(mf.emulator.linear(given, one, bias, layer.activation)[: rows.shape[1]])
    y = torch.cat(out, 1).reshape(x.shape[0], -1, conv.out_channels).mT
    return y.reshape(conv(x).shape)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("weight", "activation"), SPECS)
def test_computes_what_the_emulator_says(geometry, weight, activation):
    conv = make(geometry)
    layer = QConv2d.from_float(conv, weight, activation)
    x = torch.randn(2, 8, 9, 7)
    assert torch.equal(layer(x), expected(conv, layer, x))
    assert torch.equal(layer(x[0]), layer(x[:1])[0])


@pytest.mark.parametrize("geometry", [GEOMETRIES[0], GEOMETRIES[5], GEOMETRIES[6]], ids=str)
@pytest.mark.parametrize(("weight", "activation"), FEW)
def test_wide_formats_and_zero_points(geometry, weight, activation):
    conv = make(geometry, bias=False)
    layer = QConv2d.from_float(conv, weight, activation)
    x = torch.randn(1, 8, 5, 6)
    assert torch.equal(layer(x), expected(conv, layer, x))


@pytest.mark.parametrize(("weight", "activation"), [("mxfp4", "mxfp4"), ("nvfp4", "nvfp4"), ("int4-g16", "int8-g32")])
@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_k(weight, activation, groups):
    conv = make({"kernel_size": 2, "groups": groups}, channels=16, out=6)
    layer = QConv2d.from_float(conv, weight, activation)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), expected(conv, layer, x))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_weight_only_is_the_convolution_with_the_dequantized_weight(geometry):
    conv = make(geometry)
    layer = QConv2d.from_float(conv, "int4-row")
    x = torch.randn(2, 8, 9, 7)
    plain = make(geometry)
    plain.requires_grad_(False).weight.copy_(layer.weight)
    real = plain.double()(x.double())
    plain.weight.abs_(), plain.bias.abs_()
    n = layer.prepared.shape[1] + 5  # the bound of docs/numerics.md
    bound = n * 2**-24 / (1 - n * 2**-24) * plain(x.double().abs())
    assert ((layer(x).double() - real).abs() <= bound).all()


@pytest.mark.parametrize("geometry", [GEOMETRIES[3], GEOMETRIES[6]], ids=str)
def test_travels_like_qlinear(geometry, tmp_path):
    conv = make(geometry)
    layer = QConv2d.from_float(conv, "uint4-row-zp", "int8-tensor")
    layer.set_input_range(-1, 2.5)
    x = torch.randn(2, 8, 9, 7)
    y = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), y)
    state = layer.state_dict()
    assert set(state) == {"bias", "weight_packed", "weight_scales", "weight_zero_points", "input_range"}
    other = QConv2d.from_float(make(geometry), "uint4-row-zp", "int8-tensor")
    assert not torch.equal(other(x), y)
    other.load_state_dict(state)
    assert torch.equal(other(x), y)
    mf.save(nn.Sequential(layer), tmp_path / "m")
    model = mf.load(nn.Sequential(make(geometry)), tmp_path / "m")
    assert type(model[0]) is QConv2d and torch.equal(model(x), y)
    with pytest.raises(ValueError, match=r"the file holds a quantized layer '0', but the model has a Linear there"):
        mf.load(nn.Sequential(nn.Linear(72, 16)), tmp_path / "m")


def test_from_qtensor_and_weight():
    conv = make(GEOMETRIES[0])
    q = mf.quantize(conv.weight.detach().flatten(1), "int8-row")
    layer = QConv2d.from_qtensor(q, conv, conv.bias, "int8-row")
    assert layer.weight.shape == conv.weight.shape and layer.bias is conv.bias
    assert torch.equal(layer.weight, q.dequantize().reshape(conv.weight.shape))
    assert "kernel_size=(3, 3)" in repr(layer) and "weight=int8-row" in repr(layer)


def test_quantize_takes_convolutions_only_if_asked():
    model = nn.Sequential(make(GEOMETRIES[0]), nn.Flatten(), nn.Linear(16, 4))
    mf.quantize_(model, "int8-row")
    assert type(model[0]) is nn.Conv2d
    mf.quantize_(model, "int8-row", "int8-row", kinds=["conv2d"])
    assert type(model[0]) is QConv2d
    with pytest.raises(ValueError, match="K=72, which is not a multiple of the group size 32"):
        mf.quantize_(nn.Sequential(make(GEOMETRIES[0])), "mxfp4", kinds=["conv2d"])


@pytest.mark.parametrize("geometry", [GEOMETRIES[0], GEOMETRIES[6]], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_what_is_no_number(geometry, value):
    layer = QConv2d.from_float(make(geometry), "int4-row", "int8-row")
    x = torch.randn(1, 8, 9, 7)
    x[0, 2, 3, 3] = value
    with pytest.raises(ValueError, match="activation format.* has no NaN"):
        layer(x)
    with pytest.raises(ValueError, match=r"QConv2d: x is \(1, 3, 9, 7\), expected \(8, H, W\) or \(B, 8, H, W\)"):
        layer(torch.randn(1, 3, 9, 7))


def test_16_bit_inputs():
    for geometry in (GEOMETRIES[0], GEOMETRIES[6]):
        for activation in (None, "int8-row", "int8-tensor"):
            layer = QConv2d.from_float(make(geometry).bfloat16(), "int4-row", activation)
            assert layer(torch.randn(1, 8, 9, 7).bfloat16()).dtype == torch.bfloat16
