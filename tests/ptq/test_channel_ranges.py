"""Channel ranges: float outputs stay, depthwise inputs fill one scale, and rounding them costs less."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.ptq.batch_norm import FoldBatchNorm
from minifloat.ptq.calibrate import plan_layers
from minifloat.ptq.channel_ranges import ChannelRanges
from minifloat.ptq.data import call
from minifloat.ptq.layer import Layer
from minifloat.ptq.rescale import ChannelReLU6
from minifloat.ptq.run import Run
from ptq.nets import clone, images, net, vectors


class Residual(nn.Module):
    """An inverted residual whose expanded channels have ranges from 0.02 to 6, some of them cut off by ReLU6."""

    def __init__(self):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.relu = nn.ReLU6()
        self.depthwise, self.project = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 3, 1)

    def forward(self, x):
        return x + self.project(self.depthwise(self.relu(self.norm(self.expand(x)))))


def residual():
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        spread = torch.logspace(-1.5, 1.5, 24)
        model.norm.weight.copy_(spread)
        model.depthwise.weight.div_(spread[:, None, None, None])  # all channels matter alike
    return model


def run_of(model, batches):
    layers = [Layer(found) for found in plan_layers(model, "int8-row", None, None, None, ("linear", "conv2d"))]
    return Run(model, batches, layers, call)


@torch.no_grad()
def seen(model, batches):
    """The largest input of each channel of the depthwise layer."""
    tops = []
    with torch.no_grad():
        handle = model.depthwise.register_forward_pre_hook(lambda module, args: tops.append(args[0].amax((0, 2, 3))))
        for x in batches:
            model(x)
    handle.remove()
    return torch.stack(tops).amax(0)


@pytest.mark.parametrize("limit", [8.0, 1e6])
def test_outputs_stay_and_ranges_meet_up_to_the_limit(limit):
    model, batches = residual(), images()
    FoldBatchNorm().apply(run_of(model, batches))
    reference, before = clone(model), seen(model, batches)
    assert before.max() > 50 * before.min()
    ChannelRanges(limit).apply(run_of(model, batches))
    with torch.no_grad():
        assert max((model(x) - reference(x)).abs().max() for x in batches) < 1e-5
    assert isinstance(model.relu, ChannelReLU6)
    torch.testing.assert_close(seen(model, batches), (before * limit).clamp(max=before.max()), rtol=1e-4, atol=0)


def test_a_scale_for_all_channels_then_loses_little():
    model, batches = residual(), images()
    overrides = {"depthwise": {"activation": "int8-tensor-zp"}}
    errors = []
    with torch.no_grad():
        for recipe in ("fold_batch_norm", "fold_batch_norm + channel_ranges(limit=1000)"):
            q = mf.calibrate(model, batches, recipe, "int8-row", overrides=overrides)
            errors.append(sum((q(x) - model(x)).square().mean().item() for x in batches))
    assert errors[1] < 0.5 * errors[0]


def test_what_has_no_depthwise_layer_is_refused():
    with pytest.raises(ValueError, match="channel_ranges: no depthwise convolution has a layer before it"):
        mf.calibrate(net(), vectors(), "channel_ranges", "int8-row")
    with pytest.raises(ValueError, match="channel_ranges: limit=0.5 must be at least 1"):
        ChannelRanges(0.5)


def test_an_interrupted_run_scales_again(tmp_path):
    recipe = "fold_batch_norm + channel_ranges + gptq"
    whole, again = (
        mf.calibrate(residual(), images(), recipe, "int4-row", resume=tmp_path / "r")(images()[0]) for _ in range(2)
    )
    assert torch.equal(whole, again)
