"""Shifted inputs: float outputs stay, no layer's error rises, and one-sided inputs gain most."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import minifloat as mf
from minifloat.ptq import calibrate
from minifloat.ptq.shift_inputs import ShiftInputs, rounding_error, shift_input
from ptq.nets import cnn, images, layer_of, mse, net, vectors


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(16, 8),
        lambda: nn.Linear(16, 8, bias=False),
        lambda: nn.Conv2d(16, 8, 1),
        lambda: nn.Conv2d(16, 8, 1, groups=4),
    ],
)
def test_any_shift_leaves_the_outputs_of_float_weights_and_fine_inputs(make):
    torch.manual_seed(0)
    module = make()
    layer = layer_of(module, "int8-row", "int8-row")
    x = torch.randn(5, 16) if isinstance(module, nn.Linear) else torch.randn(2, 16, 3, 3)
    want = module(x)
    rows = layer.rows(x)
    shift_input(layer, torch.randn(rows.shape[0], 1, rows.shape[2]))
    got = layer.rows(x) @ layer.matrix.reshape(rows.shape[0], -1, rows.shape[2]).mT
    got = (got.permute(1, 0, 2).flatten(1) + layer.bias).reshape(-1, 8)
    torch.testing.assert_close(got, layer.channels(want), rtol=1e-5, atol=1e-5)
    made = layer.make(layer.nearest())
    assert torch.equal(made.input_shift, layer.input_shift) and torch.equal(made.bias, layer.bias)
    assert mse(made, module, [x]) < 1e-3


@pytest.mark.parametrize("activation", ["int4-row", "e2m1-row", "e2m1-g16-e8m0", "int4-tensor", "nf4-row"])
def test_the_choice_is_no_worse_than_the_input_as_it_is(activation):
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(32, 32), "int8-row", activation)
    for x in (torch.randn(400, 32), F.gelu(3 * torch.randn(400, 32)), torch.rand(400, 32) + torch.randn(32)):
        rows = layer.rows(x)
        shift, spec = ShiftInputs().choose(layer, rows)
        assert rounding_error(layer, rows, shift, spec) <= rounding_error(layer, rows, None, layer.activation)


@pytest.mark.parametrize("activation, unsigned", [("int4-row", "uint4-row"), ("e2m1-row", "ue2m2-row")])
def test_what_gelu_puts_out_becomes_unsigned_and_costs_less_than_half(activation, unsigned):
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(64, 32), "int8-row", activation)
    rows = layer.rows(F.gelu(2 * torch.randn(512, 64)))
    plain = rounding_error(layer, rows, None, layer.activation)
    shift, spec = ShiftInputs().choose(layer, rows)
    assert str(spec) == unsigned and shift.max() < 0
    assert rounding_error(layer, rows, shift, spec) < 0.5 * plain
    shift, spec = ShiftInputs(unsigned=False).choose(layer, rows)
    assert str(spec) == activation and rounding_error(layer, rows, shift, spec) > 0.5 * plain


def test_rounding_methods_and_ranges_work_on_shifted_inputs(tmp_path):
    model, batches = net(), vectors()
    recipe = "shift_inputs + input_ranges + gptq + brecq(steps=100, rate=0.05) + bias_correction"
    nearest = calibrate(model, batches, "input_ranges(rule=absmax)", "int4-row", "int4-tensor")
    found = calibrate(model, batches, recipe, "int4-row", "int4-tensor")
    assert mse(found, model, batches) < 0.6 * mse(nearest, model, batches)
    assert -0.02 < found.blocks[0].down.input_range[0] <= 0  # of x - z; x itself goes down to -0.17
    mf.save(found, tmp_path / "m.safetensors")
    assert torch.equal(mf.load(net(), tmp_path / "m.safetensors")(batches[0]), found(batches[0]))


def test_columns_in_float_are_not_shifted():
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(32, 16), "int8-row", "int4-row")
    layer.outliers = (torch.tensor([3, 7]), torch.float32)
    x = torch.randn(300, 32) + 2
    rows = layer.rows(x)
    shift, layer.activation = ShiftInputs().choose(layer, rows)
    assert shift.abs().min() == 0 and (shift != 0).sum() == 30
    shift_input(layer, shift)
    made = layer.make(layer.nearest())
    columns = layer.outliers[0]
    assert not made.input_shift[columns].any()
    torch.testing.assert_close(made(x), layer.float(x), rtol=0, atol=0.5)
    far = x.clone()
    far[:, columns] = 1000.0  # would leave nothing of the other columns if it were rounded with them
    torch.testing.assert_close(made(far), layer.float(far), rtol=1e-3, atol=0.5)


def test_convolutions_that_pad_are_left_alone():
    model, batches = cnn(), images()
    found = calibrate(model, batches, "fold_batch_norm + shift_inputs", "int8-row", "int4-row")
    assert found.features[0].input_shift is None and found.features[3].input_shift is None
    assert str(found.features[6].activation) == "uint4-row"


def test_an_interrupted_run_continues_with_the_same_shifts(tmp_path):
    model, batches = net(), vectors()
    recipe = "shift_inputs + gptq"
    once = calibrate(model, batches, recipe, "int4-row", "int4-row", resume=tmp_path)
    for file in sorted(tmp_path.glob("00-*"))[::2] + sorted(tmp_path.glob("01-*"))[::2]:
        file.unlink()
    again = calibrate(model, batches, recipe, "int4-row", "int4-row", resume=tmp_path)
    assert torch.equal(again(batches[0]), once(batches[0]))
    assert torch.equal(again.blocks[1].down.input_shift, once.blocks[1].down.input_shift)


def test_wrong_orders_and_settings():
    model, batches = net(), vectors()
    for recipe, message in (
        ("shift_inputs + smoothquant", "smoothquant changes inputs, so it comes before what shifts those of 'stem'"),
        ("gptq + shift_inputs", "works on float layers"),
        ("input_ranges + shift_inputs", "comes before what fixes the input range of 'stem'"),
        ("shift_inputs(quantile=0.5)", "quantile=0.5"),
        ("shift_inputs + shift_inputs", "stem' is shifted already"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate(model, batches, recipe, "int4-row", "int4-tensor")
    with pytest.raises(ValueError, match="no layer has inputs that are rounded"):
        calibrate(model, batches, "shift_inputs", "int4-row")
