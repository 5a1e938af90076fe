"""Batch norm folding and equalization: float outputs stay, weights change as they should."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.ptq.batch_norm import FoldBatchNorm
from minifloat.ptq.calibrate import call, plan_layers
from minifloat.ptq.equalization import Equalize, find_pairs
from minifloat.ptq.layer import Layer
from minifloat.ptq.rescale import ChannelReLU6
from minifloat.ptq.run import Run
from ptq.nets import clone, cnn, images, net, vectors


def run_of(model, batches):
    layers = [Layer(found) for found in plan_layers(model, "int4-row", None, None, None, ("linear", "conv2d"))]
    return Run(model, batches, layers, call)


def change(model, reference, batches):
    with torch.no_grad():
        return max((model(x) - reference(x)).abs().max().item() for x in batches)


class Mobile(nn.Module):
    """An inverted residual, with ReLU6, batch norms and a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(3, 18, 1, bias=False), nn.BatchNorm2d(18)
        self.depthwise, self.norm2 = nn.Conv2d(18, 18, 3, padding=1, groups=18, bias=False), nn.BatchNorm2d(18)
        self.project, self.norm3 = nn.Conv2d(18, 3, 1, bias=False), nn.BatchNorm2d(3)
        self.relu1, self.relu2 = nn.ReLU6(inplace=True), nn.ReLU6(inplace=True)

    def forward(self, x):
        y = self.relu1(self.norm1(self.expand(x)))
        y = self.relu2(self.norm2(self.depthwise(y)))
        return x + self.norm3(self.project(y))


def mobile():
    torch.manual_seed(0)
    model = Mobile()
    for norm in (model.norm1, model.norm2, model.norm3):
        norm.running_var.uniform_(0.01, 4)
        norm.running_mean.normal_()
        nn.init.uniform_(norm.weight, 0.1, 5)
        nn.init.normal_(norm.bias)
    return model.eval()


@pytest.mark.parametrize("make", [cnn, mobile])
def test_batch_norms_fold(make):
    model, batches = make(), images()
    reference = clone(model)
    FoldBatchNorm().apply(run_of(model, batches))
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert change(model, reference, batches) < 1e-5


def test_a_batch_norm_that_something_else_bypasses_stays():
    class Bypass(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Linear(32, 8)

        def forward(self, x):
            y = self.a(x)
            return self.b(self.norm(y) + y)

    torch.manual_seed(0)
    model = Bypass().eval()
    FoldBatchNorm().apply(run_of(model, vectors()))
    assert isinstance(model.norm, nn.BatchNorm1d)
    assert not find_pairs(run_of(model, vectors()))


@pytest.mark.parametrize("make", [cnn, mobile])
def test_equalization_changes_no_output_and_meets_halfway(make):
    model, batches = make(), images()
    FoldBatchNorm().apply(run_of(model, batches))
    reference = clone(model)
    run = run_of(model, batches)
    pairs = find_pairs(run)
    names = {id(m): name for name, m in model.named_modules()}
    found = [(names[id(path[0].module)], names[id(path[-1].module)]) for path in pairs]
    if make is cnn:
        assert found == [("features.0", "features.3"), ("features.3", "features.6"), ("features.6", "head")]
    else:
        assert found == [("expand", "depthwise"), ("depthwise", "project")]
    Equalize().apply(run)
    assert change(model, reference, batches) < 1e-5
    first, second = pairs[0][0].module.weight, pairs[0][-1].module.weight
    ranges = first.abs().flatten(1).amax(1), second.abs().flatten(1).amax(1)  # the second is depthwise
    torch.testing.assert_close(*ranges, rtol=0.01, atol=1e-6)
    assert not torch.allclose(first, reference.get_submodule(found[0][0]).weight)
    assert len([m for m in model.modules() if isinstance(m, ChannelReLU6)]) == (2 if make is mobile else 0)


def test_equalization_helps_a_tensor_scale():
    model, batches = mobile(), images()
    with torch.no_grad():
        expected = [model(x) for x in batches]
        errors = []
        for recipe in ("fold_batch_norm", "fold_batch_norm + equalize"):
            q = mf.calibrate(model, batches, recipe, "int6-tensor")
            errors.append(sum(((q(x) - y) ** 2).mean().item() for x, y in zip(batches, expected, strict=True)))
    assert errors[1] < 0.5 * errors[0]


def test_both_come_before_what_quantizes():
    with pytest.raises(ValueError, match="recipe: equalize works on float layers, so it comes before what quantizes"):
        mf.calibrate(cnn(), images(), "gptq + equalize", "int4-row")


def test_an_interrupted_run_folds_again(tmp_path):
    whole = mf.calibrate(mobile(), images(), "fold_batch_norm + equalize + gptq", "int4-row", resume=tmp_path / "r")
    again = mf.calibrate(mobile(), images(), "fold_batch_norm + equalize + gptq", "int4-row", resume=tmp_path / "r")
    assert torch.equal(whole(images()[0]), again(images()[0]))


def test_nothing_to_fold_is_no_error():
    model = net()
    run = run_of(model, vectors())
    FoldBatchNorm().apply(run)
    Equalize().apply(run)
    assert change(model, net(), vectors()) == 0
