"""The number of exponent bits, by search and by gradient."""

import pytest
import torch

import minifloat as mf
from minifloat.ptq import ScaleRule, calibrate
from minifloat.ptq.exponent_bits import choose_exponent_bits, learn_exponent_bits, splits
from ptq.layer_data import correlated, output_error, spread, two_kinds


def test_every_split_is_tried():
    assert [f.name for f in splits(4)] == ["int4", "e1m2", "e2m1", "e3m0"]
    assert [f.name for f in splits(8)] == ["int8", "e1m6", "e2m5", "e3m4", "e4m3fn", "e5m2", "e6m1", "e7m0"]
    with pytest.raises(ValueError, match="3 to 8 bits, got 2"):
        splits(2)


@pytest.mark.parametrize("spec", ["int3-row", "e2m1-g32-e8m0", "e3m2-tensor", "int8-row"])
@pytest.mark.parametrize("kind", ["uniform", "normal", "student"])
def test_no_split_has_a_smaller_error(kind, spec):
    w, spec = spread(kind), mf.QuantSpec.parse(spec)
    found = choose_exponent_bits(w, spec, rule=ScaleRule("absmax"))
    errors = {}
    for f in splits(spec.format.bits):
        q = mf.quantize(w, str(spec).replace(spec.format.name, f.name))
        errors[str(q.spec)] = (q.dequantize() - w).double().square().sum().item()
    assert found.errors == pytest.approx(errors)
    assert errors[str(found.spec)] == min(errors.values())


def test_heavier_tails_take_more_exponent_bits():
    bits = [choose_exponent_bits(spread(kind), "int8-tensor").spec.format for kind in ("uniform", "normal", "student")]
    assert [f.exponent_bits or 0 for f in bits] == [0, 2, 3]


@pytest.mark.parametrize("granularity", ["row", "tensor"])
@pytest.mark.parametrize("start", ["e4m3fn", "int8", "e2m1", "e5m0"])
@pytest.mark.parametrize("kind", ["uniform", "normal", "student"])
def test_learning_never_ends_above_its_start(kind, start, granularity):
    w, spec = spread(kind), f"{start}-{granularity}"
    found = learn_exponent_bits(w, spec, steps=120, rate=0.04)
    assert found.spec.format.bits == mf.QuantSpec.parse(spec).format.bits
    first = next(iter(found.errors.values()))
    assert found.error <= first
    assert (found.q.dequantize() - w).double().square().sum().item() == pytest.approx(found.error, rel=1e-9)


@pytest.mark.parametrize("kind, exponent_bits", [("normal", 2), ("student", 3)])
def test_learning_finds_what_the_search_finds(kind, exponent_bits):
    w = spread(kind)
    learned = learn_exponent_bits(w, "e4m3fn-tensor")
    searched = choose_exponent_bits(w, "e4m3fn-tensor")
    assert learned.spec.format.exponent_bits == searched.spec.format.exponent_bits == exponent_bits
    assert learned.error < 1.1 * searched.error
    assert learned.error < 0.5 * searched.errors["e4m3fn-tensor"]


def test_learning_by_output_error():
    w, x, gram = correlated()
    found = learn_exponent_bits(w, "e4m3fn-row", gram)
    assert found.error == pytest.approx(output_error(w, found.q, x), rel=1e-5)
    assert found.error < output_error(w, mf.quantize(w, "e4m3fn-row-mse"), x)


@pytest.mark.parametrize("spec", ["e2m1-g32", "e2m1-row-e8m0", "uint4-row-zp"])
def test_learning_refuses_other_scales(spec):
    with pytest.raises(ValueError, match="scales per tensor or row"):
        learn_exponent_bits(spread("normal"), spec)


@pytest.mark.parametrize("recipe", ["exponent_bits", "exponent_bits(learn=True)"])
def test_the_step(recipe):
    model, batches = two_kinds()
    x = torch.cat(batches)
    found = calibrate(model, batches, recipe, "e4m3fn-tensor", "int8-row")
    before = calibrate(model, batches, "", "e4m3fn-tensor", "int8-row")
    assert found.uniform.spec.format.exponent_bits in (None, 1, 2)
    assert found.heavy.spec.format.exponent_bits == 3
    assert ((found(x) - model(x)) ** 2).mean() < 0.5 * ((before(x) - model(x)) ** 2).mean()
