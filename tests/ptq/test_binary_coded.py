"""The recipe step that makes linear layers sums of binary planes."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.binary_coding import binary_code
from minifloat.nn import BinaryCodedLinear, QConv2d
from minifloat.ptq.binary_coded import CodeInPlanes
from minifloat.ptq.collect import Hessian
from minifloat.ptq.gptq import output_error
from minifloat.ptq.store import Store
from ptq.layer_data import correlated
from ptq.nets import cnn, images, layer_of, mse, net, vectors

NAMES = ["stem", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "head"]


def coded(recipe, activation="int8-row", **settings):
    return mf.calibrate(net(), vectors(), recipe, "int4-row", activation, **settings)


def test_codes_every_linear_layer():
    model, q = net(), coded("binary_coded(bits=2, group=16, scale=float32, iterations=5)")
    for name in NAMES:
        layer, w = q.get_submodule(name), model.get_submodule(name).weight.detach()
        expected = binary_code(w, 2, 16, "float32", 5)
        assert type(layer) is BinaryCodedLinear and layer.planes == 2 and str(layer.activation) == "int8-row"
        assert torch.equal(layer.qtensor.packed, expected.packed)
        assert torch.equal(layer.qtensor.scale_data, expected.scale_data)


def test_the_better_the_error_looks_at_inputs_the_smaller_it_is():
    model, batches = net(), vectors()
    found = {
        error: mse(coded(f"binary_coded(group=32, error={error})"), model, batches)
        for error in ("weight", "diagonal", "output")
    }
    assert found["output"] < 0.6 * found["weight"] and found["diagonal"] < found["weight"]


@pytest.mark.parametrize("group", [32, None])
def test_the_output_error_is_never_above_that_of_coding_without_the_sweep(group):
    w, x, _ = correlated()
    linear = nn.Linear(96, 48)
    linear.weight.data = w
    layer, hessian = layer_of(linear, "int4-row"), Hessian()
    hessian.update(layer, x)
    errors = {}
    for error in ("weight", "diagonal", "output"):
        q = CodeInPlanes(3, group, error=error).quantize(layer, hessian.value)
        delta = torch.from_numpy(mf.emulator.binary_coded_weight(q, 3)).float() - w
        errors[error] = output_error(delta, hessian.value)
    assert errors["output"] < 0.6 * errors["diagonal"] < 0.6 * errors["weight"]


def test_the_sweep_is_not_taken_where_it_does_harm(monkeypatch):
    """Inputs without correlation, of which the sweep is told wrong things."""
    linear = nn.Linear(32, 8)
    layer, hessian = layer_of(linear, "int4-row"), torch.eye(32).double()[None]
    real = mf.ptq.binary_coded.sweep
    wrong = (torch.ones(1, 32, 32) + torch.eye(32)).double()
    monkeypatch.setattr(mf.ptq.binary_coded, "sweep", lambda columns, w, h, *rest: real(columns, w, wrong, *rest))
    swept = CodeInPlanes(2, 16, error="output").quantize(layer, hessian)
    plain = CodeInPlanes(2, 16, error="diagonal").quantize(layer, hessian)
    assert torch.equal(swept.packed, plain.packed) and torch.equal(swept.scale_data, plain.scale_data)


def test_goes_with_other_steps():
    model, batches = net(), vectors()
    plain = mse(coded("binary_coded(group=32)", "int8-tensor"), model, batches)
    q = coded("smoothquant + input_ranges + binary_coded(group=32, error=output) + bias_correction", "int8-tensor")
    assert type(q.stem) is BinaryCodedLinear and q.stem.input_range is not None
    assert mse(q, model, batches) < 0.7 * plain


def test_convolutions_keep_their_specs_and_are_named():
    with pytest.warns(UserWarning, match=r"convolutions stay as .*: 'features.0' \(int4-row\), 'features.3'"):
        q = mf.calibrate(cnn(), images(), "binary_coded(bits=4, group=None)", "int4-row", "int8-row")
    assert type(q.head) is BinaryCodedLinear
    assert all(type(q.features[i]) is QConv2d and str(q.features[i].spec) == "int4-row" for i in (0, 3, 6))


def test_a_layer_can_be_left_out():
    q = coded("binary_coded(group=32)", overrides={"head": None})
    assert type(q.head) is nn.Linear and type(q.stem) is BinaryCodedLinear


@pytest.mark.parametrize("error", ["weight", "output"])
def test_wherever_it_is_interrupted_the_result_is_the_same(tmp_path, monkeypatch, error):
    recipe, x = f"smoothquant + binary_coded(group=16, error={error}) + bias_correction", vectors()[0]
    whole, real = coded(recipe)(x), Store.save
    saves = []
    monkeypatch.setattr(Store, "save", lambda self, *a: saves.append(a[:2]) or real(self, *a))
    coded(recipe, resume=tmp_path / "all")
    for survive in range(0, len(saves), 3):
        left, again, folder = [survive], [], tmp_path / f"after {survive}"

        def save(self, *a, left=left):
            if not left[0]:
                raise InterruptedError
            left[0] -= 1
            real(self, *a)

        monkeypatch.setattr(Store, "save", save)
        with pytest.raises(InterruptedError):
            coded(recipe, resume=folder)
        monkeypatch.setattr(Store, "save", lambda self, *a, again=again: again.append(a[:2]) or real(self, *a))
        assert torch.equal(coded(recipe, resume=folder)(x), whole)
        assert again == saves[survive:]  # nothing twice, nothing left out


def test_the_result_can_be_saved(tmp_path):
    q = coded("binary_coded(group=32, error=output)")
    mf.save(q, tmp_path / "m")
    assert torch.equal(mf.load(net(), tmp_path / "m")(vectors()[0]), q(vectors()[0]))


def test_text_and_json():
    step = CodeInPlanes(4, None, "e4m3fn", 7, "output", 0.1)
    recipe = mf.ptq.Recipe((step,))
    assert mf.ptq.Recipe.parse(str(recipe)) == recipe == mf.ptq.Recipe.from_json(recipe.to_json())
    assert "group=None" in str(step) and str(CodeInPlanes()) == "binary_coded"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("binary_coded(bits=9)", "binary_coded: a binary-coded weight has 1 to 8 planes, got 9"),
        ("binary_coded(bits=None)", "bits is None, expected a int such as 3"),
        ("binary_coded(group=0)", "binary_coded: group size 0 must be between 1 and"),
        ("binary_coded(group=wide)", "group is 'wide', expected a int such as 128"),
        ("binary_coded(scale=int8)", "binary_coded: scale format 'int8' must be one of float32"),
        ("binary_coded(error=none)", "error='none' must be one of weight, diagonal, output"),
        ("binary_coded(damp=0.0)", "damp=0.0 above 0"),
        (
            "binary_coded(group=24)",
            r"layer 'stem': K=32 .* group 24: take 16 or 32, or None .*overrides=\{'stem': None\}",
        ),
        ("binary_coded", "layer 'stem': K=32 is not a multiple of the group 128: take 32, or None"),
        ("gptq + binary_coded(group=16)", "binary_coded works on float layers, so it comes before"),
        ("binary_coded(group=16) + gptq", "binary_coded has quantized 'stem' already, and this step would undo it"),
        ("binary_coded(group=16) + coordinate_descent", "coordinate_descent cannot improve the planes .* of 'stem'"),
        ("outliers(threshold=0.1) + binary_coded(group=16)", "'stem' keeps outliers in float"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        coded(text)
