"""The sooner form of grouped convolutions has the bits of QConv2d, and leaves alone what it could get wrong."""

import pytest
import torch
from torch import nn

from minifloat.explore.depthwise import FloatCarried, applies, rounded, sooner
from minifloat.formats import Format
from minifloat.nn.qconv import QConv2d
from minifloat.plan import Plan

NAMES = ["int2", "int3", "int4", "int8", "e1m1", "e2m0", "e3m0", "e4m0", "e2m1", "e3m1", "e2m3", "e3m2", "e3m3", "e3m4"]


@pytest.mark.parametrize("name", [*NAMES, "e2m5", "e4m2", "e5m1"])
def test_rounds_as_the_format_does(name):
    f = Format.parse(name)
    values = torch.tensor(sorted({v for v in f.values if v == v}), dtype=torch.float32)
    middles = (values[1:] + values[:-1]) / 2
    x = torch.cat([values, middles, torch.nextafter(middles, values[1:]), torch.nextafter(middles, values[:-1])])
    x = torch.cat([x, 4 * values, torch.randn(1000) * f.max, torch.randn(1000) * f.smallest])
    assert torch.equal(rounded(x, f), f.decode(f.encode(x)))


@pytest.mark.parametrize("weight", NAMES)
@pytest.mark.parametrize("activation", NAMES)
def test_has_the_bits_of_qconv2d(weight, activation):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=6)
    q = QConv2d.from_float(layer, f"{weight}-row", f"{activation}-tensor")
    x = 3 * torch.randn(2, 6, 9, 9)
    if Plan(q.spec, q.activation).accumulator_bits(9) > 25:
        assert not applies(q)  # float32 does not hold these sums
        return
    with torch.no_grad():
        for ends in (None, (-1.5, 4.0)):
            if ends:
                q.set_input_range(*ends)
            assert torch.equal(FloatCarried(q)(x), q(x))


@pytest.mark.parametrize(
    ("weight", "activation", "groups", "stride"),
    [
        ("int4-row", "int4-row", 4, 1),  # a scale for each patch
        ("int4-row", None, 4, 1),
        ("int4-row", "e2m1-tensor-e8m0", 4, 1),
        ("int4-row", "nf4-tensor", 4, 1),
        ("nf4-row", "int4-tensor", 4, 1),
        ("int4-row-zp", "int4-tensor", 4, 1),
        ("e5m2-row", "int8-tensor", 4, 1),  # sums beyond 2**24
        ("int4-row", "int4-tensor", 1, 1),  # the packed kernels are quick
        ("int4-row", "int4-tensor", 4, 4),  # pixels outside of all patches
    ],
)
def test_leaves_others_alone(weight, activation, groups, stride):
    model = nn.Sequential(QConv2d.from_float(nn.Conv2d(4, 8, 3, stride, groups=groups), weight, activation))
    before = model[0]
    assert sooner(model)[0] is before


def test_replaces_within_a_model():
    model = nn.Sequential(nn.Sequential(QConv2d.from_float(nn.Conv2d(4, 8, 3, groups=4), "int4-row", "int4-tensor")))
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        before = model(x)
        assert torch.equal(sooner(model)(x), before)
    assert isinstance(model[0][0], FloatCarried)


def test_not_finite():
    layer = FloatCarried(QConv2d.from_float(nn.Conv2d(4, 4, 3, groups=4), "int4-row", "int4-tensor"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        layer(torch.full((1, 4, 8, 8), torch.nan))
