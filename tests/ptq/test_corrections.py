"""Bias correction and fixed input ranges."""

import pytest
import torch

import minifloat as mf
from minifloat.nn.static import as_range
from minifloat.ptq.calibrate import call, plan_layers
from minifloat.ptq.collect import Mean, Moments
from minifloat.ptq.input_ranges import Histogram, clipping_error
from minifloat.ptq.layer import Layer
from minifloat.ptq.run import Run
from ptq.nets import clone, cnn, images, layer_of, mse, net, vectors


@pytest.mark.parametrize(("make", "data"), [(net, vectors), (cnn, images)])
def test_mean_outputs_become_the_float_ones(make, data):
    batches = data()
    model = make()
    layers = [Layer(f) for f in plan_layers(model, "int3-row", "int4-row", None, None, ("linear", "conv2d"))]
    run = Run(model, batches, layers, call)
    float_bias = model.head.bias.clone()
    run.apply(mf.ptq.Recipe.parse("bias_correction").steps[0], 0)
    for recipe, correct in (("", False), ("bias_correction", True)):
        q = mf.calibrate(make(), batches, recipe, "int3-row", "int4-row") if not correct else model
        gaps = []
        for layer in layers:
            wanted, found = Mean("output"), Mean("output")
            for module, mean in ((make().get_submodule(layer.name), wanted), (q.get_submodule(layer.name), found)):
                whole = q if mean is found else None
                if whole is None:
                    whole = make()
                    module = whole.get_submodule(layer.name)
                handle = module.register_forward_hook(lambda m, a, y, mean=mean, layer=layer: mean.update(layer, y))
                for x in batches:
                    whole(x)
                handle.remove()
            gaps.append(((wanted.value - found.value).abs().max() / wanted.value.abs().max()).item())
        assert (max(gaps) < 1e-4) == correct, (recipe, gaps)
    assert torch.equal(layers[-1].float.bias, float_bias)  # the float layer's is another


def test_bias_correction_helps_the_output():
    batches = images(6)
    with torch.no_grad():
        errors = [
            mse(mf.calibrate(cnn(), batches, recipe, "int4-tensor"), cnn(), batches)
            for recipe in ("fold_batch_norm", "fold_batch_norm + bias_correction")
        ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("rule", ["absmax", "percentile", "mse"])
def test_input_ranges_hold_for_every_batch(rule):
    batches = vectors()
    q = mf.calibrate(net(), batches, f"input_ranges(rule={rule}, percentile=99.0)", "int8-row", "int8-tensor")
    assert torch.equal(q(torch.cat(batches))[:64], q(batches[0]))
    low, high = q.stem.input_range.tolist()
    x = torch.cat(batches)
    ends = as_range(x.min().item(), x.max().item())
    if rule == "absmax":
        assert [low, high] == ends.tolist()
    else:
        assert ends[0] <= low < 0 < high <= ends[1]
    if rule == "percentile":
        width = (ends[1] - ends[0]) / 2048
        for wider, holds in ((width, lambda share: share <= 0.01), (-width, lambda share: share >= 0.01)):
            assert holds((x < low - wider).double().mean()) and holds((x > high + wider).double().mean())


def test_mse_ranges_have_the_least_error():
    x = torch.randn(100000) ** 3
    spec = mf.QuantSpec.parse("int4-tensor")
    histogram = Histogram(x.min().item(), x.max().item())
    histogram.update(layer_of(torch.nn.Linear(1, 1), "int4-row", "int4-tensor"), x)
    step = mf.ptq.Recipe.parse("input_ranges").steps[0]
    low, high = step._choose(histogram, spec)
    assert -low < 0.7 * -histogram.low

    def error(part):
        a, b = histogram.low * part, histogram.high * part
        scale = max(-a, b) / 7
        return ((x.clamp(a, b) / scale).round().clamp(-8, 7) * scale - x).square().sum().item()

    chosen = error(high / histogram.high)
    assert chosen <= 1.02 * min(error(part / 100) for part in range(1, 101))
    assert clipping_error(histogram, spec, low, high) == pytest.approx(chosen, rel=0.02)


def test_ranges_survive_files_and_interruptions(tmp_path):
    recipe = "input_ranges + gptq"
    q = mf.calibrate(net(), vectors(), recipe, "int4-row", "int8-tensor", resume=tmp_path / "r")
    again = mf.calibrate(net(), vectors(), recipe, "int4-row", "int8-tensor", resume=tmp_path / "r")
    mf.save(q, tmp_path / "m")
    loaded = mf.load(clone(net()), tmp_path / "m")
    x = vectors(seed=9)[0]
    assert torch.equal(again(x), q(x)) and torch.equal(loaded(x), q(x))
    assert torch.equal(loaded.head.input_range, q.head.input_range)


def test_ranges_need_a_scale_for_all_of_x():
    with pytest.raises(ValueError, match="no layer has an activation with one scale for all of x, such as int8-tensor"):
        mf.calibrate(net(), vectors(), "input_ranges", "int4-row", "int8-row")
    with pytest.raises(ValueError, match="rule 'best' must be one of"):
        mf.ptq.Recipe.parse("input_ranges(rule=best)")
    with pytest.raises(ValueError, match="percentile 30 must be above 50"):
        mf.ptq.Recipe.parse("input_ranges(percentile=30)")


def corrected(recipe):
    """The run after this step on layers rounded to nearest, and each layer's outputs now."""
    model = net()
    layers = [Layer(f) for f in plan_layers(model, "int3-row", "int4-row", None, None, ("linear",))]
    run = Run(model, vectors(), layers, call)
    run.apply(mf.ptq.Recipe.parse(recipe).steps[0], 0)
    return run, moments(run)


def moments(run):
    found = {layer: Moments() for layer in run.layers}
    run.collect(found)
    return {layer.name: one for layer, one in found.items()}


def test_with_variance_outputs_get_the_mean_and_deviation_of_the_float_ones():
    run, found = corrected("bias_correction(variance=True)")
    plain = corrected("bias_correction")[1]
    with run.as_float():
        wanted = moments(run)
    for name, one in wanted.items():
        torch.testing.assert_close(found[name].value, one.value, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[name].deviation, one.deviation, rtol=1e-4, atol=1e-4)
        assert (plain[name].deviation / one.deviation - 1).abs().max() > 0.01  # without, it is not so


def test_variance_needs_a_float_scale_for_each_row():
    for weight in ("int4-tensor", "e2m1-g32-e8m0", "nvfp4"):
        with pytest.raises(ValueError, match="with a float scale for each row, such as int4-row, but 'stem' has"):
            mf.calibrate(net(), vectors(), "bias_correction(variance=True)", weight)
