"""MoFQ: int or float per layer, never worse than either."""

import pytest
import torch

import minifloat as mf
from minifloat.ptq import ScaleRule, calibrate
from minifloat.ptq.mofq import int_or_float
from ptq.layer_data import correlated, output_error, spread, two_kinds


@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("scales", ["row", "g32-e8m0", "tensor"])
@pytest.mark.parametrize("kind", ["uniform", "normal", "student"])
def test_error_is_that_of_the_better_choice(kind, scales, bits):
    w = spread(kind)
    found = int_or_float(w, f"int{bits}-{scales}", rule=ScaleRule("absmax"))
    pure = [f"int{bits}-{scales}", str(found.spec).replace("int", "")] if found.spec.format.kind == "int" else None
    errors = {spec: (mf.quantize(w, spec).dequantize() - w).double().square().sum().item() for spec in found.errors}
    assert len(errors) == 2 and (pure is None or pure[0] in errors)
    assert {mf.QuantSpec.parse(spec).format.kind for spec in errors} == {"int", "float"}
    assert found.error == pytest.approx(min(errors.values()), rel=1e-6)
    assert str(found.spec) == min(errors, key=errors.get)


def test_light_tails_choose_int_and_heavy_ones_float():
    assert int_or_float(spread("uniform"), "e2m1-row").spec.format.name == "int4"
    assert int_or_float(spread("student"), "int4-row").spec.format.name == "e2m1"
    assert int_or_float(spread("student"), "int8-tensor").spec.format.name == "e4m3fn"


def test_by_output_error():
    w, x, gram = correlated()
    found = int_or_float(w, "int4-row", gram, ScaleRule("absmax"))
    errors = {spec: output_error(w, mf.quantize(w, spec), x) for spec in ("int4-row", "e2m1-row")}
    assert found.errors == pytest.approx(errors)
    assert found.error == min(found.errors.values())


@pytest.mark.parametrize("activation", [None, "int4-row"])
def test_the_step_mixes_kinds_and_beats_both_pure_models_layer_by_layer(activation):
    model, batches = two_kinds()
    mixed = calibrate(model, batches, "mofq", "int4-row", activation)
    pure = {f: calibrate(model, batches, "", f"{f}-row", activation and f"{f}-row") for f in ("int4", "e2m1")}
    inputs = {"uniform": torch.cat(batches), "heavy": model.uniform(torch.cat(batches)).relu()}

    def layer_error(quantized, name):
        x, layer = inputs[name], getattr(model, name)
        w = getattr(quantized, name).weight
        error = ((x @ (w - layer.weight).T) ** 2).sum(1).mean().item()
        if activation:
            delta = mf.quantize(x, getattr(quantized, name).activation).dequantize() - x
            error += ((delta @ layer.weight.T) ** 2).sum(1).mean().item()
        return error

    for name in inputs:
        best = min(layer_error(model, name) for model in pure.values())
        assert layer_error(mixed, name) <= best * 1.02  # the step sees a sample of the inputs
    assert str(mixed.uniform.spec) == "int4-row"
    assert str(mixed.heavy.spec) == "e2m1-row"


def test_a_width_without_floats_is_refused():
    with pytest.raises(ValueError, match="3 to 8 bits, got 2"):
        int_or_float(spread("normal"), "int2-row")
