"""What the steps share: an interrupted run goes on where it stopped, wrong places are refused, mixed models run."""

import copy

import pytest
import torch

from minifloat.nn.qmodule import QModule
from minifloat.ptq import STEPS, Recipe, calibrate
from minifloat.ptq.run import Run
from ptq.nets import cnn, images, mse, net, vectors

RECIPES = [
    "mofq",
    "ant",
    "exponent_bits",
    "exponent_bits(learn=True, steps=20)",
    "ffp8",
    "kbit(types=('int', 'quantile'))",
    "adaround(steps=30)",
    "brecq(steps=30)",
    "coordinate_descent",
    "mofq + awq(points=4) + adaround(steps=30)",
]


def codes(model):
    return [(str(m.spec), str(m.activation), m.qtensor.codes) for m in model.modules() if isinstance(m, QModule)]


def same(a, b):
    return all(x[:2] == y[:2] and torch.equal(x[2], y[2]) for x, y in zip(codes(a), codes(b), strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    model, batches = net(), vectors(batches=2)
    whole = calibrate(model, batches, recipe, "int4-row", "int4-row")
    keep, calls = Run.keep, []

    def keep_two(run, layer):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(layer.name)
        keep(run, layer)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "keep", keep_two)
        with pytest.raises(KeyboardInterrupt):
            calibrate(model, batches, recipe, "int4-row", "int4-row", resume=tmp_path)
    again = []
    monkeypatch.setattr(Run, "keep", lambda run, layer: again.append(layer.name) or keep(run, layer))
    assert same(calibrate(model, batches, recipe, "int4-row", "int4-row", resume=tmp_path), whole)
    if "+" not in recipe:  # where a later step goes over all layers again
        finished = calls[:1] if "brecq" in recipe else calls  # half a block is learned again
        assert not set(finished) & set(again)


@pytest.mark.parametrize("name", ["mofq", "ant", "exponent_bits", "ffp8", "kbit", "awq"])
def test_steps_that_choose_come_before_what_quantizes(name):
    with pytest.raises(ValueError, match=f"{name} works on float layers, so it comes before what quantizes 'stem'"):
        calibrate(net(), vectors(batches=1), f"gptq + {name}", "int4-row")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_float_model_is_left_alone_and_convolutions_run(recipe):
    model, batches = cnn(), images(batches=2)
    before = copy.deepcopy(model.state_dict())
    found = calibrate(model, batches, recipe, "int4-row", "int8-row")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    nearest = calibrate(model, batches, "", "int4-row", "int8-row")
    if "ffp8" not in recipe:  # which has no scale per row
        assert mse(found, model, batches) <= 1.05 * mse(nearest, model, batches)
    assert len(codes(found)) == 4


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_round_trip(recipe):
    parsed = Recipe.parse(recipe)
    assert Recipe.parse(str(parsed)) == parsed
    assert Recipe.from_json(parsed.to_json()) == parsed


def test_every_step_has_a_name_that_recipes_know():
    named = {
        "adaround",
        "ant",
        "awq",
        "brecq",
        "coordinate_descent",
        "exponent_bits",
        "ffp8",
        "kbit",
        "mixed_precision",
    }
    assert named | {"mofq"} <= set(STEPS)
