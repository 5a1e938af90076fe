"""Learned rounding: on the grid, next to the float weight, and never worse than rounding to nearest."""

import pytest
import torch

import minifloat as mf
from minifloat.ptq import calibrate
from minifloat.ptq.adaround import Schedule, SoftRounding, learn_rounding
from minifloat.ptq.errors import gram_of, row_errors
from minifloat.ptq.neighbours import grid_of, neighbours, steps_and_zeros
from ptq import nets
from ptq.layer_data import correlated, output_error

SPECS = ["int4-row", "uint3-g32-zp", "e2m1-g32-e8m0", "e3m2-row", "nvfp4", "nf4-g32", "e4m3fn-tensor", "ternary-row"]
SHORT = Schedule(steps=150, rate=0.05)


@pytest.mark.parametrize("spec", SPECS)
def test_error_falls_and_the_grid_is_kept(spec):
    w, x, gram = correlated()
    nearest = mf.quantize(w, spec)
    learned = learn_rounding(w, nearest, gram, SHORT)
    assert (row_errors(w, learned, gram) <= row_errors(w, nearest, gram)).all()
    assert output_error(w, learned, x) < 0.8 * output_error(w, nearest, x)
    assert torch.equal(learned.scales, nearest.scales)
    grid = grid_of(nearest.spec.format)[0].float()
    step, zero = (t.float() for t in steps_and_zeros(nearest))
    on_grid = (grid - zero[..., None]) * step[..., None]
    assert torch.isclose(on_grid, learned.dequantize()[..., None], rtol=1e-6, atol=0).any(-1).all()


@pytest.mark.parametrize("spec", SPECS)
def test_as_published_every_weight_goes_to_one_of_its_two_neighbours(spec):
    w, x, gram = correlated()
    nearest = mf.quantize(w, spec)
    between = neighbours(w, nearest)
    learned = learn_rounding(w, nearest, gram, SHORT, sweeps=0)
    now = learned.dequantize()
    assert ((now == between.low) | (now == between.high)).all()
    assert (now != nearest.dequantize()).any()
    assert output_error(w, learned, x) < output_error(w, nearest, x)


def test_neighbours_enclose_the_weight_and_hold_the_nearest_value():
    for spec in SPECS:
        w = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
        q = mf.quantize(w, spec)
        low, high, *_ = neighbours(w, q)
        inside = low < high
        assert ((low <= w) & (w <= high))[inside].all()
        assert inside.float().mean() > 0.5
        nearest = torch.where(w - low < high - w, low, high)
        tied = torch.isclose(w - low, high - w, rtol=1e-5)
        assert torch.equal(nearest[~tied & inside], q.dequantize()[~tied & inside])
        assert torch.equal(low[~inside], q.dequantize()[~inside])  # beyond the range: its end


def test_the_soft_weight_starts_as_the_float_one():
    w = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    soft = SoftRounding(w, mf.quantize(w, "e2m1-g32"))
    between = soft.between.low < soft.between.high
    torch.testing.assert_close(soft.weight(soft.h())[between], w[between])


def test_grouped_inputs_are_each_run_of_rows_own():
    w, _, _ = correlated(n=12, k=16)
    x = torch.randn(3, 64, 16, generator=torch.Generator().manual_seed(2))
    nearest = mf.quantize(w, "int3-row")
    together = learn_rounding(w, nearest, gram_of(x), SHORT)
    for g in range(3):
        rows = slice(4 * g, 4 * g + 4)
        alone = learn_rounding(w[rows], mf.quantize(w[rows], "int3-row"), gram_of(x[g]), SHORT)
        torch.testing.assert_close(row_errors(w, together, gram_of(x))[rows], row_errors(w[rows], alone, gram_of(x[g])))


def test_inputs_that_are_never_on_change_nothing():
    w, x, _ = correlated(n=8, k=32)
    x[:, ::2] = 0
    nearest = mf.quantize(w, "int3-row")
    learned = learn_rounding(w, nearest, gram_of(x), SHORT)
    assert output_error(w, learned, x) <= output_error(w, nearest, x)
    assert torch.equal(mf.quantize(torch.zeros(4, 8), "int3-row").codes, torch.zeros(4, 8, dtype=torch.uint8))


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="steps >= 1"):
        Schedule(steps=0)
    with pytest.raises(ValueError, match="rate > 0"):
        Schedule(rate=float("nan"))
    with pytest.raises(ValueError, match="warm_up"):
        Schedule(warm_up=1.0)


@pytest.mark.parametrize("recipe", ["adaround(steps=150, rate=0.05)", "coordinate_descent"])
@pytest.mark.parametrize("weight, activation", [("int3-row", None), ("e2m1-g32-e8m0", "int8-row")])
@pytest.mark.parametrize("made", [(nets.net, nets.vectors), (nets.cnn, nets.images)])
def test_the_steps_lower_the_error_of_models_and_of_gptq(made, weight, activation, recipe):
    model, batches = made[0](), made[1]()
    if made[0] is nets.cnn:
        weight = weight.replace("-g32-e8m0", "-row-bf16")  # K = 9 and 27 have no groups of 32
    nearest, gptq, found, both = (
        nets.mse(calibrate(model, batches, r, weight, activation), model, batches)
        for r in ("", "gptq", recipe, f"gptq + {recipe}")
    )
    assert found < 0.6 * nearest
    assert both < gptq


def test_rounding_is_learned_on_what_quantized_layers_put_out():
    model, batches = nets.net(), nets.vectors()
    found = calibrate(model, batches, "adaround(steps=50)", "int3-row")
    layer = found.blocks[0].down  # its inputs come through three quantized layers
    seen = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for x in batches:
        found(x)
    x, w = torch.cat(seen).reshape(-1, layer.in_features), model.blocks[0].down.weight
    assert output_error(w, layer.qtensor, x) < output_error(w, mf.quantize(w.detach(), "int3-row"), x)
