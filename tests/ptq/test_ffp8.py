"""FFP8: bias, split and signedness per tensor, and no scale."""

import pytest
import torch

import minifloat as mf
from minifloat.ptq import calibrate
from minifloat.ptq.ffp8 import choose_flexible, fitting_bias, flexible, unsigned_of
from ptq.layer_data import correlated, output_error, spread, two_kinds


@pytest.mark.parametrize("size", [1e-20, 3e-3, 1.0, 4e12])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_the_bias_puts_the_format_where_the_values_are(bits, size):
    w = spread("normal") * size
    found = choose_flexible(w, bits)
    assert found.q.scales.tolist() == [[1.0]]
    assert torch.equal(found.q.dequantize(), found.spec.format.decode(found.q.codes))
    assert found.error == min(found.errors.values())
    # Any other bias of the same split is worse.
    f = found.spec.format
    for bias in range(f.bias - 4, f.bias + 5):
        other = flexible(f.exponent_bits, bits, f.signed, bias)
        error = (other.decode(other.encode(w)) - w).double().square().sum().item()
        assert error >= found.error * (1 - 1e-6)


@pytest.mark.parametrize("largest", [1e-20, 0.3, 0.9375, 1.0, 480.0, 1e12])
def test_the_fitting_bias_is_the_greatest_that_fits(largest):
    bias = fitting_bias(4, 8, True, largest)
    assert flexible(4, 8, True, bias).max >= largest > flexible(4, 8, True, bias + 1).max


def test_no_negative_element_makes_it_unsigned_and_better():
    w = spread("normal").relu()
    found = choose_flexible(w)
    assert not found.spec.format.signed
    assert found.error < 0.5 * choose_flexible(torch.cat([w, -w])).error / 2


def test_unsigned_forms():
    names = {"int8": "uint8", "e2m1": "ue2m2", "e4m3fn": "ue4m4", "e5m2": "ue5m3", "e3m0": "ue3m1"}
    assert {name: unsigned_of(mf.Format.parse(name)).name for name in names} == names
    assert unsigned_of(mf.Format.parse("uint4")) is None
    assert unsigned_of(mf.Format.parse("nf4")) is None


def test_by_output_error():
    w, x, gram = correlated()
    found = choose_flexible(w, 6, gram)
    assert found.error == pytest.approx(output_error(w, found.q, x), rel=1e-5)


def test_zeros_and_wrong_splits():
    assert choose_flexible(torch.zeros(2, 8)).error == 0
    with pytest.raises(ValueError, match="no split of 3 bits has"):
        choose_flexible(spread("normal"), 3, exponent_bits=[5])


def test_the_step_makes_inputs_after_a_relu_unsigned():
    model, batches = two_kinds()
    found = calibrate(model, batches, "ffp8", "e4m3fn-tensor", "e2m1-row")
    assert str(found.uniform.activation) == "e2m1-row"
    assert str(found.heavy.activation) == "ue2m2-row"
    assert found.heavy.qtensor.scales.tolist() == [[1.0]]
    x = torch.cat(batches)
    signed = calibrate(model, batches, "ffp8(activations=False)", "e4m3fn-tensor", "e2m1-row")
    assert str(signed.heavy.activation) == "e2m1-row"
    assert ((found(x) - model(x)) ** 2).mean() < ((signed(x) - model(x)) ** 2).mean()


def test_only_activations():
    model, batches = two_kinds()
    found = calibrate(model, batches, "ffp8(weights=False)", "int8-row", "int4-row")
    assert [str(found.uniform.spec), str(found.heavy.spec)] == ["int8-row", "int8-row"]
    assert [str(found.uniform.activation), str(found.heavy.activation)] == ["int4-row", "uint4-row"]
