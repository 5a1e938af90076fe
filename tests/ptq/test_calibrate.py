"""mf.calibrate: what it returns, which layers it takes, how data runs through, and what it refuses."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QConv2d, QLinear
from minifloat.ptq.calibrate import call, plan_layers
from minifloat.ptq.collect import AbsMax, Hessian, Mean, Samples
from minifloat.ptq.layer import Layer
from minifloat.ptq.run import Run
from ptq.nets import clone, cnn, images, net, vectors


def run_of(model, batches, weight="int4-row", kinds=("linear", "conv2d")):
    layers = [Layer(found) for found in plan_layers(model, weight, None, None, None, kinds)]
    return Run(model, batches, layers, call)


def test_the_empty_recipe_is_quantize_():
    model, x = net(), vectors()
    before = {name: p.clone() for name, p in model.named_parameters()}
    report = []
    q = mf.calibrate(model, x, "", "e2m1-g32-e8m0", "int8-row", report=report)
    other = mf.quantize_(clone(model), "e2m1-g32-e8m0", "int8-row")
    assert torch.equal(q(x[0]), other(x[0]))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()) and type(model.head) is nn.Linear
    assert [str(r).split(":")[0] for r in report][0] == "stem (32, 32)" and all(r.quantized for r in report)


def test_in_place():
    model = net()
    assert mf.calibrate(model, vectors(), "", "int8-row", in_place=True) is model and type(model.head) is QLinear


def test_convolutions_too_unless_left_out():
    q = mf.calibrate(cnn(), images(), "", "int8-row")
    assert type(q.features[0]) is QConv2d and type(q.head) is QLinear
    q = mf.calibrate(cnn(), images(), "", "int8-row", kinds=["linear"])
    assert type(q.features[0]) is nn.Conv2d and type(q.head) is QLinear
    q = mf.calibrate(cnn(), images(), "", "int8-row", overrides={"features.0": {"weight": "int4-row"}, "head": None})
    assert str(q.features[0].spec) == "int4-row" and type(q.head) is nn.Linear


def test_batches_of_every_kind():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, a, b=0):
            return self.layer(a) + b

    x = torch.randn(3, 8)
    for batch in (x, (x, 1), [x], {"a": x, "b": 2}):
        assert type(mf.calibrate(Two(), [batch], "", "int8-row").layer) is QLinear
    loader = torch.utils.data.DataLoader([(torch.randn(8), 3)] * 6, batch_size=2)
    q = mf.calibrate(Two(), loader, "gptq", "int8-row", forward=lambda model, batch: model(batch[0]))
    assert type(q.layer) is QLinear
    assert type(mf.calibrate(Two(), (x for _ in range(2)), "gptq", "int8-row").layer) is QLinear  # read once


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data has no batches"),
        (torch.zeros(3, 32), r"data is one tensor \(3, 32\): give a list"),
        ([torch.zeros(0, 32)], r"batch 0 is empty: it holds a tensor of shape \(0, 32\)"),
        ([torch.zeros(1, 32), torch.full((2, 32), float("nan"))], r"batch 1 holds nan at \(0, 0\)"),
        ([{"x": torch.full((2, 32), float("inf"))}], r"batch 0 holds inf at \(0, 0\)"),
        (["text"], "batch 0 holds no tensor; it is a str"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=f"calibrate: {message}"):
        mf.calibrate(net(), data, "gptq", "int8-row")


def test_models_without_a_layer_to_quantize():
    with pytest.raises(ValueError, match="calibrate: Sequential has no nn.Linear or nn.Conv2d"):
        mf.calibrate(nn.Sequential(nn.ReLU()), vectors(), "", "int8-row")
    with pytest.raises(ValueError, match="calibrate: a Linear cannot replace itself: use mf.nn.QLinear.from_float"):
        mf.calibrate(nn.Linear(32, 2), vectors(), "", "int8-row")
    with pytest.raises(ValueError, match="calibrate: select='haed' matches no"):
        mf.calibrate(net(), vectors(), "", "int8-row", select="haed")


def test_a_layer_that_is_never_called():
    model = net()
    model.spare = nn.Linear(32, 32)
    with pytest.raises(ValueError, match="never calls 'spare' .* overrides={'spare': None}"):
        mf.calibrate(model, vectors(), "", "int8-row")
    mf.calibrate(model, vectors(), "", "int8-row", overrides={"spare": None})


def test_fused_transformer_layers_are_calibrated():
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    with pytest.warns(UserWarning, match="calibrate: left in float: 'self_attn.out_proj'"):
        q = mf.calibrate(model, [torch.randn(2, 5, 32)], "gptq", "int8-row", "int8-row")
    assert type(q.linear1) is QLinear
    assert torch.backends.mha.get_fastpath_enabled()


# --- the run ---


def test_collectors_see_what_layers_see():
    model, batches = cnn(), images()
    run = run_of(model, batches)
    head = run.layers[-1]
    assert [layer.name for layer in run.layers] == ["features.0", "features.3", "features.6", "head"]
    first, deep = run.layers[0], run.layers[1]
    hessians = {layer: Hessian() for layer in run.layers}
    run.collect(hessians)
    top, mean, sample = AbsMax(), Mean("output"), Samples(7, run.generator)
    run.collect({deep: [top, mean], head: [sample]})
    x = torch.cat(batches)
    rows = torch.nn.functional.unfold(x, 3, padding=1).mT.reshape(-1, 27).double()
    torch.testing.assert_close(hessians[first].value[0], rows.mT @ rows, rtol=1e-5, atol=1e-3)
    assert hessians[first].count == len(rows) and hessians[deep].value.shape == (16, 9, 9)
    inputs = model.features[:3](x)
    assert torch.equal(top.value, inputs.abs().amax((0, 2, 3)))
    outputs = model.features[3](inputs).double()
    torch.testing.assert_close(mean.value, outputs.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    features = model.features(x).relu().mean((2, 3))
    assert sample.value.shape == (1, 7, 24)
    assert all((features - row).abs().sum(1).min() < 1e-5 for row in sample.value[0])


def test_a_pass_stops_after_the_last_layer_it_is_for():
    model, calls = net(), []
    run = run_of(model, vectors())
    model.head.register_forward_hook(lambda *_: calls.append(1))
    run.collect({run.layers[1]: AbsMax()})
    assert not calls
    run.collect({run.layers[-1]: AbsMax()})
    assert len(calls) == 4


class Unchained(nn.Module):
    """Each block sees what the blocks before it make, plus the input: not a chain."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(32, 32) for _ in range(3)])

    def forward(self, x):
        y = x
        for block in self.blocks:
            y = block(y + x)
        return y


@pytest.mark.parametrize(("make", "chained"), [(net, True), (lambda: Unchained().eval(), False)])
def test_blocks_in_sequence_see_the_quantized_ones_before_them(make, chained):
    model, batches = make(), vectors()
    run = run_of(model, batches)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    names = []
    for block in run.sequence(targets=True):
        seen = []
        handle = block.module.register_forward_hook(lambda m, a, y, seen=seen: seen.append((a[0], y)))
        run.forward(batches[1])
        with run.as_float():
            run.forward(batches[1])
        handle.remove()
        assert torch.equal(block.inputs[1][0][0], seen[0][0]) and torch.equal(block.targets[1], seen[1][1])
        for layer in block.layers:
            run.set_weight(layer, layer.nearest())
        names.append(block.name)
    order = ["stem", "blocks.0", "blocks.1", "head"] if chained else ["blocks.0", "blocks.1", "blocks.2"]
    assert names == order and run.block is None
    # Whole passes: those of this test, the trace, and for each batch those to the blocks that no chain leads to:
    # blocks.1 is called like blocks.0, but blocks.0 has an argument that the stem has not, and the head has none.
    captured = 2 * len(batches) * (len(names) - chained)
    assert len(calls) == 2 * len(names) + 1 + captured


def test_float_modules_come_back_only_while_asked_for():
    model = net()
    run = run_of(model, vectors())
    float_head = model.head
    for layer in run.layers:
        run.set_weight(layer, layer.nearest())
    with run.as_float():
        assert model.head is float_head
    assert type(model.head) is QLinear
