"""Scales: each rule's defining property, and matrices rounded with given scales."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.formats import QuantSpec
from minifloat.ptq import ScaleRule, Scales
from ptq.nets import clone, layer_of, net, vectors

SPECS = [
    "int4-row",
    "e2m1-g32-e8m0",
    "nvfp4",
    "uint4-g32-bf16-zp",
    "nf4-g64",
    "e4m3fn-tensor",
    "uint8-row-zp",
    "int3-g16-bf16",
]


def weights():
    torch.manual_seed(0)
    return torch.randn(24, 64) * torch.rand(24, 1) + (torch.rand(24, 64) > 0.99) * 3


def squared_error(found, w):
    return (found.round(w) - w).double().square().sum().item()


@pytest.mark.parametrize("spec", SPECS)
def test_absmax_is_mf_quantize(spec):
    w, spec = weights(), QuantSpec.parse(spec)
    q, scales = mf.quantize(w, spec), ScaleRule().find(w, spec)
    assert torch.equal(scales.values, q.scales) and torch.equal(scales.codes(w), q.codes)
    rebuilt = scales.qtensor(scales.codes(w))
    for part in ("packed", "scale_data", "zero_points", "tensor_scale"):
        a, b = getattr(rebuilt, part), getattr(q, part)
        assert a is b is None or torch.equal(a, b)
    assert torch.equal(scales.round(w), q.dequantize())


@pytest.mark.parametrize("spec", SPECS)
def test_mse_has_no_larger_error_in_any_group(spec):
    w, spec = weights(), QuantSpec.parse(spec)
    plain, found = ScaleRule().find(w, spec), ScaleRule("mse").find(w, spec)
    errors = [
        (scales.round(w) - w).double().square().reshape(*scales.values.shape, -1).sum(-1) for scales in (plain, found)
    ]
    assert (errors[1] <= errors[0] * (1 + 1e-6)).all()
    assert errors[1].sum() < errors[0].sum() or spec.format.bits == 8  # where nothing is gained by clipping


def test_mse_finds_the_best_of_its_candidates():
    w, spec = weights(), QuantSpec.parse("int4-row")
    found = squared_error(ScaleRule("mse").find(w, spec), w)
    base = ScaleRule().find(w, spec).values
    best = torch.stack([
        (Scales(spec, base * f).round(w) - w).double().square().sum(1) for f in torch.linspace(1, 0.3, 57)
    ]).amin(0).sum().item()  # fmt: skip
    assert found == pytest.approx(best, rel=1e-6)


def test_importance_weighs_the_error():
    w, spec = weights(), QuantSpec.parse("int3-row")
    importance = torch.zeros(64)
    importance[:8] = 1
    plain, found = ScaleRule("mse").find(w, spec), ScaleRule("mse").find(w, spec, importance)
    errors = [(scales.round(w) - w)[:, :8].double().square().sum(1) for scales in (plain, found)]
    assert (errors[1] <= errors[0]).all() and errors[1].sum() < errors[0].sum()


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 100.0])
def test_percentile_clips_that_many(percentile):
    w, spec = weights(), QuantSpec.parse("int8-row")
    scales = ScaleRule("percentile", percentile).find(w, spec)
    clipped = (w.abs() > scales.values * 127 * (1 + 1e-6)).double().mean(1)
    assert (clipped <= 1 - percentile / 100).all()
    assert (clipped > 1 - percentile / 100 - 1 / 64 - 1e-9).all()  # one more element would be too many


@pytest.mark.parametrize("rule", ["absmax", "mse", "percentile"])
@pytest.mark.parametrize("spec", ["int4-row", "uint4-g32-zp", "e2m1-tensor"])
def test_powers_of_two(rule, spec):
    w, spec = weights(), QuantSpec.parse(spec)
    found = ScaleRule(rule, power_of_two=True).find(w, spec)
    assert torch.equal(torch.frexp(found.values)[0], torch.full_like(found.values, 0.5))
    if rule == "absmax" and not spec.zero_point:  # nothing is clipped, and half the scale would clip
        top = w.abs().reshape(*found.values.shape, -1).amax(-1)
        assert (found.values * spec.format.max >= top).all() and (found.values / 2 * spec.format.max < top).all()


@pytest.mark.parametrize("spec", SPECS)
def test_elements_round_as_in_the_matrix(spec):
    w, spec = weights(), QuantSpec.parse(spec)
    scales = ScaleRule("mse").find(w, spec)
    rows = torch.arange(24)
    for k in (torch.zeros(24, dtype=torch.long), torch.randint(64, (24,))):
        column = scales.elements(rows, k)
        codes = column.codes(w[rows, k, None])
        assert torch.equal(codes[:, 0], scales.codes(w)[rows, k])
        assert torch.equal(column.decode(codes)[:, 0], scales.round(w)[rows, k])


def test_the_step_reaches_whatever_quantizes():
    model, batches = net(), vectors()
    absmax = mf.calibrate(model, batches, "", "int4-row")
    found = mf.calibrate(model, batches, "scales(rule=mse)", "int4-row")
    layer = layer_of(clone(model).head, "int4-row")
    layer.rule = ScaleRule("mse")
    assert torch.equal(found.head.weight, layer.nearest().dequantize())
    w = model.head.weight
    assert (found.head.weight - w).square().sum() < (absmax.head.weight - w).square().sum()
    two = mf.calibrate(model, batches, "scales(rule=mse, power_of_two=True) + gptq", "int4-row")
    assert torch.equal(torch.frexp(two.head.qtensor.scales)[0], torch.full((8, 1), 0.5))
    assert isinstance(two.head, nn.Module)


def test_bad_rules():
    for arguments in (("middle",), ("percentile", 0.0), ("percentile", 101.0)):
        with pytest.raises(ValueError, match="must be"):
            ScaleRule(*arguments)
