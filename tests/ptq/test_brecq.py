"""Block reconstruction: blocks by name, their errors never rise, and learning together beats learning apart."""

import pytest
import torch

from minifloat.ptq import calibrate
from minifloat.ptq.brecq import rounded_input
from ptq.nets import cnn, images, layer_of, mse, net, vectors

SHORT = "brecq(steps=150, rate=0.05)"


@pytest.mark.parametrize("weight, activation", [("int3-row", None), ("e2m1-g32-e8m0", "int8-row"), ("nf4-row", None)])
def test_the_model_gets_nearer_to_the_float_one(weight, activation):
    model, batches = net(), vectors()
    nearest = mse(calibrate(model, batches, "", weight, activation), model, batches)
    alone = "adaround(steps=150, rate=0.05)"
    adaround, brecq, both = (
        mse(calibrate(model, batches, recipe, weight, activation), model, batches)
        for recipe in (alone, SHORT, f"{alone} + {SHORT}")
    )
    assert brecq < 0.5 * nearest
    assert both < adaround


def test_convolutions_with_groups_and_batch_norms():
    model, batches = cnn(), images()
    nearest = mse(calibrate(model, batches, "", "e2m1-row", "int8-row"), model, batches)
    assert mse(calibrate(model, batches, SHORT, "e2m1-row", "int8-row"), model, batches) < 0.5 * nearest


def test_only_the_named_blocks_are_learned():
    model, batches = net(), vectors()
    nearest = calibrate(model, batches, "", "int3-row")
    found = calibrate(model, batches, "brecq(blocks='blocks.1', steps=60, rate=0.05)", "int3-row")
    same = {
        name: torch.equal(layer.qtensor.codes, dict(nearest.named_modules())[name].qtensor.codes)
        for name, layer in found.named_modules()
        if hasattr(layer, "qtensor")
    }
    assert same == {
        **dict.fromkeys(["stem", "blocks.0.up", "blocks.0.down", "head"], True),
        **dict.fromkeys(["blocks.1.up", "blocks.1.down"], False),
    }
    with pytest.raises(ValueError, match="layer.* matches no block; there are stem, blocks.0, blocks.1, head"):
        calibrate(model, batches, "brecq(blocks='layer.*')", "int3-row")


def test_no_block_gets_worse_even_by_bad_settings():
    model, batches = net(), vectors()
    wild = calibrate(model, batches, "brecq(steps=1, rate=50.0)", "int3-row")
    nearest = calibrate(model, batches, "", "int3-row")
    with torch.no_grad():
        x = torch.cat(batches)
        inputs, target = wild.stem(x), model.blocks[0](model.stem(x), scale=0.5)
        errors = [((m.blocks[0](inputs, scale=0.5) - target) ** 2).mean() for m in (wild, nearest)]
    assert errors[0] <= errors[1] * (1 + 1e-6)


def test_it_is_repeatable_and_leaves_the_model_alone():
    model, batches = net(), vectors()
    before = [p.clone() for p in model.parameters()]
    a, b = (calibrate(model, batches, "brecq(steps=20)", "e2m1-row") for _ in range(2))
    assert torch.equal(a(batches[0]), b(batches[0]))
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("activation", ["int4-row", "e2m1-tensor", "int8-g16"])
def test_learning_sees_the_inputs_that_a_linear_layer_multiplies(activation):
    layer = layer_of(torch.nn.Linear(32, 32, bias=False), "int8-row", activation)
    with torch.no_grad():
        layer.float.weight.copy_(torch.eye(32))
    x = torch.randn(2, 5, 32)
    seen = layer.make(layer.nearest())(x)
    torch.testing.assert_close(seen, rounded_input(layer, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", [None, "int8-row"])
def test_columns_that_stay_in_float_are_learned_around(activation):
    model, batches = net(), vectors()
    recipe = "outliers(threshold=2.0)"
    plain = calibrate(model, batches, recipe, "int3-row", activation)
    found = calibrate(model, batches, f"{recipe} + {SHORT}", "int3-row", activation)
    assert len(found.blocks[0].up.outlier_columns)
    assert torch.equal(found.blocks[0].up.outlier_weight, plain.blocks[0].up.outlier_weight)
    assert mse(found, model, batches) < 0.6 * mse(plain, model, batches)


@pytest.mark.parametrize("activation", ["int8-tensor", None])
def test_a_fixed_range_and_gptq_before(activation):
    model, batches = net(), vectors()
    recipe = ("input_ranges + " if activation else "") + "gptq"
    plain = calibrate(model, batches, recipe, "int3-row", activation)
    found = calibrate(model, batches, f"{recipe} + {SHORT}", "int3-row", activation)
    assert mse(found, model, batches) < 0.8 * mse(plain, model, batches)


def test_what_helps_only_the_batches_learned_from_is_not_kept():
    model = net()
    rng = torch.Generator().manual_seed(0)
    few = torch.randn(4, 32, generator=rng)  # three batches within four directions, one in all
    batches = [*(torch.randn(64, 4, generator=rng) @ few for _ in range(3)), 3 * torch.randn(64, 32, generator=rng)]

    def error(recipe, data):
        """Of the first layer on the last batch."""
        delta = calibrate(model, data, recipe, "int3-row").stem.weight - model.stem.weight
        return (batches[-1] @ delta.T).square().mean().item()

    nearest = error("", batches)
    assert error("brecq(steps=100)", batches[:-1]) > 1.5 * nearest
    assert error("brecq(steps=100)", batches) <= nearest
    with pytest.raises(ValueError, match="holdout=1.5"):
        calibrate(model, batches, "brecq(holdout=1.5)", "int3-row")
