"""quantize_: which layers change and how, and what is reported."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QLinear
from nn.nets import NAMES, X, assert_fails, net, specs


def test_every_linear_by_default():
    model, original = net(), net()
    assert mf.quantize_(model, "int8-row", "int8-row") is model
    assert specs(model) == {name: ("int8-row", "int8-row") for name in NAMES}
    assert (model(X) - original(X)).abs().max() < 0.05 * original(X).abs().max()
    for name in NAMES:  # each has its own weight
        expected = QLinear.from_float(original.get_submodule(name), "int8-row", "int8-row")
        assert torch.equal(model.get_submodule(name).weight, expected.weight)
        assert not model.get_submodule(name).training


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        ("head", ["head"]),
        ("layers.*", NAMES[:4]),
        ("*.up", ["layers.0.up", "layers.2.up".replace("2", "1")]),
        (["layers.0.*", "head"], ["layers.0.up", "layers.0.down", "head"]),
        ("layers.[1].d?wn", ["layers.1.down"]),
        (lambda name, module: module.bias is None, ["layers.0.down", "layers.1.down"]),
    ],
)
def test_select(select, chosen):
    model = mf.quantize_(net(), "int4-g32", select=select)
    assert list(specs(model)) == chosen
    model(X)


def test_overrides_refine_and_later_ones_win():
    model = mf.quantize_(
        net(),
        "int4-g32",
        "int8-row",
        overrides={
            "layers.*": {"weight": "int6-row"},
            "layers.1.*": {"activation": None},
            "layers.1.up": {"weight": "mxfp4", "activation": "mxfp8-e4m3"},
            "head": None,
        },
    )
    assert specs(model) == {
        "layers.0.up": ("int6-row", "int8-row"),
        "layers.0.down": ("int6-row", "int8-row"),
        "layers.1.up": ("e2m1-g32-e8m0", "e4m3fn-g32-e8m0"),
        "layers.1.down": ("int6-row", None),
    }
    assert type(model.head) is nn.Linear


def test_an_override_can_bring_back_what_an_earlier_one_left_out():
    overrides = {"layers.*": None, "*.up": {"activation": "int8-row"}}
    model = mf.quantize_(net(), "int4-g32", overrides=overrides)
    assert specs(model) == {
        "layers.0.up": ("int4-g32", "int8-row"),
        "layers.1.up": ("int4-g32", "int8-row"),
        "head": ("int4-g32", None),
    }


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"select": "haed"}, "select='haed' matches no Linear layer; patterns are globs over names such as 'head'"),
        ({"select": ["head", "layers.7.*"]}, "select='layers.7.\\*' matches no Linear layer"),
        ({"select": "norm"}, "select='norm' matches no Linear layer"),
        ({"select": []}, "select is an empty list"),
        ({"select": lambda name, module: False}, "select chose none of the 5 Linear layers"),
        ({"overrides": {"haed": None}}, "the override 'haed' matches no Linear layer; .*'head'"),
        (
            {"select": "layers.*", "overrides": {"head": None}},
            "override 'head' matches no Linear layer that select chose",
        ),
        ({"overrides": {"head": "int8-row"}}, "the override of 'head' is 'int8-row'; expected None .* or a dictionary"),
        ({"overrides": {"head": {"wieght": "int8-row"}}}, "the override of 'head' is .*wieght.*'weight', 'activation'"),
        ({"overrides": {"head": {}}}, "the override of 'head' is {}"),
        ({"overrides": {"head": {"weight": None}}}, "the override of 'head' has no weight; use None alone"),
        ({"overrides": {"head": {"weight": "int4"}}}, "does not say where scales live"),
        ({"activation": "int8-row-mse"}, "activation int8-row-mse: x is scaled by absmax at run time; drop '-mse'"),
        ({"overrides": {"head": {"activation": "int8-row-mse"}}}, "drop '-mse'"),
        ({"activation": "e4m3-row"}, "'e4m3' .*did you mean"),
    ],
)
def test_refuses_what_it_cannot_follow(kwargs, text):
    assert_fails(net(), text, "int8-row", **kwargs)


def test_report_covers_every_linear():
    report = []
    mf.quantize_(net(), "mxfp4", "int8-row", select="layers.*", overrides={"layers.1.*": None}, report=report)
    assert [r.name for r in report] == NAMES
    assert [r.reason for r in report] == ["", "", *["left out by an override"] * 2, "not selected"]
    assert str(report[0]) == "layers.0.up (96, 64): e2m1-g32-e8m0 x int8-row, 4.25 bits"
    assert str(report[4]) == "head (10, 64): float, 32 bits (not selected)"
    assert (report[0].shape, report[0].bits_per_value, report[0].quantized) == ((96, 64), 4.25, True)


def test_a_failed_call_reports_nothing():
    report = []
    assert_fails(net(), "K=64", "int4-g48", report=report)
    assert report == []


def test_no_warning_without_a_reason():
    mf.quantize_(net(), "int8-row", select="head")  # warnings are errors here
