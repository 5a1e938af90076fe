"""Mixed precision on models: the budget is met by what runs, and no other choice within it has a smaller loss."""

import itertools

import pytest
import torch

from minifloat.nn.qmodule import QModule
from minifloat.ptq import Recipe, calibrate, candidate_costs, mixed_precision
from minifloat.ptq.mixed_precision import MixedPrecision
from minifloat.rtl import costs
from ptq.nets import cnn, images, mse, net, vectors

pytest.importorskip("scipy", reason="scipy is not installed")
FORMATS = ("int3", "e2m1", "int8")


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, QModule)]


def bits_of(model):
    layers = [layer.qtensor for layer in layers_of(model)]
    return sum(8 * q.nbytes for q in layers) / sum(q.shape[0] * q.shape[1] for q in layers)


@pytest.mark.parametrize("sensitivity", ["output", "hessian", "model"])
@pytest.mark.parametrize("bits", [4.6, 5.5, 7.0])
def test_the_budget_is_met_and_the_choice_is_that_of_brute_force(bits, sensitivity, monkeypatch):
    tables = []
    solve = mixed_precision.solve
    monkeypatch.setattr(mixed_precision, "solve", lambda *given: tables.append(given) or solve(*given))
    step = MixedPrecision({"bits": bits}, FORMATS, sensitivity=sensitivity)
    found = calibrate(net(), vectors(), step, "int4-row")
    assert bits_of(found) <= bits

    losses, table, _ = tables[0]
    chosen = [FORMATS.index(layer.spec.format.name) for layer in layers_of(found)]
    every = itertools.product(range(len(FORMATS)), repeat=len(losses))
    totals = [
        (sum(row[i] for row, i in zip(losses, choice, strict=True)), choice)
        for choice in every
        if sum(row[i] for row, i in zip(table["bits"], choice, strict=True)) <= bits
    ]
    least = min(total for total, _ in totals)
    assert sum(row[i] for row, i in zip(losses, chosen, strict=True)) == pytest.approx(least, rel=1e-9)


def test_bytes_of_a_convolutional_net():
    model, batches = cnn(), images()
    sizes = {}
    for limit in (900, 1100, 1400):
        found = calibrate(model, batches, MixedPrecision({"bytes": limit}, FORMATS), "int8-row-bf16")
        sizes[limit] = sum(layer.qtensor.nbytes for layer in layers_of(found)), mse(found, model, batches)
        assert sizes[limit][0] <= limit
    assert sizes[900][1] > sizes[1100][1] > sizes[1400][1]


def test_luts_come_from_the_shipped_table():
    model, batches = net(), vectors()
    limit = 45.0
    found = calibrate(model, batches, MixedPrecision({"luts": limit}, activations="same"), "int8-row", "int8-row")
    table = costs.load()["mac"]
    layers = layers_of(found)
    luts = [table[f"{layer.spec.format} {layer.activation.format}"]["lut"] for layer in layers]
    macs = [layer.in_features * layer.out_features for layer in layers]  # every layer sees as many rows
    assert sum(a * b for a, b in zip(luts, macs, strict=True)) / sum(macs) <= limit
    assert len({layer.spec.format for layer in layers}) > 1
    for layer in layers:
        assert layer.spec.format == layer.activation.format


def test_macs_of_grouped_convolutions():
    """One depthwise layer of 16 3x3 filters, and one of 16 x 24 1x1 ones, on 10 x 10 positions."""
    table = costs.load()["mac"]
    model, batches = cnn(), images(batches=1)
    step = MixedPrecision({"luts": 1e6}, ("int4", "int8"), activations="same")
    seen = {}
    solve = mixed_precision.solve
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_precision, "solve", lambda *given: seen.update(given[1]) or solve(*given))
        calibrate(model, batches, step, "int8-row", "int8-row")
    positions = model.features[:1](batches[0]).shape[-1] ** 2
    macs = [positions * 16 * 27, positions * 16 * 9, positions * 16 * 24, 24 * 8]
    expected = [[table[f"{f} {f}"]["lut"] * m / sum(macs) for f in ("int4", "int8")] for m in macs]
    for row, wanted in zip(seen["luts"], expected, strict=True):
        assert row == pytest.approx(wanted)


def test_measured_time_as_budget_and_as_objective(monkeypatch):
    time_us = {"int3": 5.0, "e2m1": 2.0, "int8": 3.0}  # what layers take, in place of this machine's figures
    monkeypatch.setattr(candidate_costs, "time_us", lambda module, x: time_us[module.spec.format.name])
    model, batches = net(), vectors()
    found = calibrate(model, batches, MixedPrecision({"us": 16.0}, FORMATS), "int4-row", "int8-row")
    names = [layer.spec.format.name for layer in layers_of(found)]
    assert sorted(names) == ["e2m1"] * 2 + ["int8"] * 4
    fastest = calibrate(model, batches, MixedPrecision({"loss": 1e3}, FORMATS, objective="us"), "int4-row", "int8-row")
    assert {layer.spec.format.name for layer in layers_of(fastest)} == {"e2m1"}
    exact = calibrate(model, batches, MixedPrecision({"loss": 1e-3}, FORMATS, objective="us"), "int4-row", "int8-row")
    assert {layer.spec.format.name for layer in layers_of(exact)} == {"int8"}


def test_time_is_the_least_of_several_calls():
    calls = []

    class Slow(torch.nn.Module):
        def forward(self, x):
            calls.append(x)
            return x

    assert candidate_costs.time_us(Slow(), torch.zeros(1)) >= 0
    assert len(calls) == candidate_costs.REPEATS + 1
    found = calibrate(net(), vectors(), MixedPrecision({"us": 1e9}, FORMATS), "int4-row", "int8-row")
    assert {layer.spec.format.name for layer in layers_of(found)} == {"int8"}  # time enough for the best


def test_hessian_loss_of_one_layer_is_what_calculus_says():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 8, bias=False))
    x = torch.randn(64, 16)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_precision, "solve", lambda losses, *rest: seen.append(losses) or [0])
        step = MixedPrecision({"bits": 9.0}, ("int4",), sensitivity="hessian", samples=400)
        found = calibrate(model, [x], step, "int4-row")
    trace = 2 * 8 * x.square().sum() / model(x).square().sum()
    error = (found[0].weight - model[0].weight).square().sum()
    assert seen[0][0][0] == pytest.approx((trace / (16 * 8) * error).item(), rel=0.1)
    assert model[0].weight.grad is None and model[0].weight.requires_grad


def test_a_budget_that_cannot_be_met_says_what_could():
    model, batches = net(), vectors()
    with pytest.raises(ValueError, match="2 bits cannot be met: the smallest possible is ([0-9.]+)") as error:
        calibrate(model, batches, MixedPrecision({"bits": 2.0}, FORMATS), "int4-row")
    least = float(str(error.value).split()[-1])
    found = calibrate(model, batches, MixedPrecision({"bits": least + 1e-3}, FORMATS), "int4-row")
    assert {layer.spec.format.name for layer in layers_of(found)} == {"int3"}


def test_it_composes_and_round_trips_as_text():
    text = "mixed_precision(budget={'bits': 5.0}, formats=('int3', 'e2m1-g16', 'int8')) + gptq"
    assert str(Recipe.parse(text)) == text
    assert Recipe.from_json(Recipe.parse(text).to_json()) == Recipe.parse(text)
    model, batches = net(), vectors()
    plain = calibrate(model, batches, text.removesuffix(" + gptq"), "int4-row")
    found = calibrate(model, batches, text, "int4-row")
    assert [layer.spec for layer in layers_of(found)] == [layer.spec for layer in layers_of(plain)]
    assert mse(found, model, batches) < mse(plain, model, batches)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "expected such as"),
        ({"budget": {"grams": 3.0}}, "expected such as"),
        (
            {"budget": {"bits": 4.0}, "sensitivity": "guess"},
            "sensitivity='guess' must be one of output, hessian",
        ),
        ({"budget": {"bits": 4.0}, "objective": "joy"}, "objective='joy'"),
        ({"budget": {"bits": 4.0}, "activations": "other"}, "activations='other'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MixedPrecision(**settings)


def test_costs_that_are_not_known():
    model, batches = net(), vectors()
    with pytest.raises(ValueError, match="needs an activation spec, and 'stem' has none"):
        calibrate(model, batches, MixedPrecision({"luts": 50.0}, FORMATS), "int4-row")
    with pytest.raises(ValueError, match="e1m1 x e6m1 is not in the shipped cost table"):
        calibrate(model, batches, MixedPrecision({"luts": 50.0}, ("e1m1",)), "int4-row", "e6m1-row")
    with pytest.raises(ValueError, match="layer 'stem' as int4-g24: .*K=32 is not a multiple"):
        calibrate(model, batches, MixedPrecision({"bits": 5.0}, ("int4-g24",)), "int4-row")
