"""LLM.int8(): outlier dimensions in float beside the low-bit product."""

import copy
import pickle

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import OutlierLinear, QLinear
from ptq.nets import clone, mse, net, vectors

COLUMNS = torch.tensor([3, 17])


def spiky():
    """Inputs of which two dimensions are far larger than the others."""
    batches = [x.clone() for x in vectors()]
    for x in batches:
        x[:, COLUMNS] *= 40
    return batches


def make(activation="int8-row", dtype=torch.float16):
    torch.manual_seed(0)
    linear = nn.Linear(32, 8)
    w = linear.weight.detach()
    q = mf.quantize(w.index_fill(1, COLUMNS, 0), "int4-row")
    return linear, OutlierLinear.from_qtensor(q, linear.bias, activation, COLUMNS, w[:, COLUMNS].to(dtype))


@pytest.mark.parametrize("activation", [None, "int8-row"])
def test_is_the_low_bit_product_plus_the_float_one(activation):
    _, layer = make(activation)
    x = torch.randn(2, 5, 32)
    low = QLinear.from_qtensor(layer.qtensor, layer.bias, activation)(x.index_fill(-1, COLUMNS, 0))
    assert torch.equal(layer(x), low + x[..., COLUMNS] @ layer.outlier_weight.float().T)
    if activation:
        exact = mf.emulator.linear(x.index_fill(-1, COLUMNS, 0), layer.qtensor, layer.bias, activation)
        assert torch.equal(low, exact)


def test_holds_and_tells_both_weights():
    linear, layer = make()
    assert torch.equal(layer.weight[:, COLUMNS], linear.weight[:, COLUMNS].half().float())
    assert layer.bits_per_value == layer.prepared.bits_per_value + 2 * 16 / 32
    assert "2 outlier columns in torch.float16" in repr(layer)


def test_travels(tmp_path):
    _, layer = make("int8-tensor", torch.float32)
    layer.set_input_range(-2, 2)
    x = torch.randn(5, 32)
    y = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).half().float()):
        assert torch.allclose(other(x), y, atol=1e-3) and other.outlier_weight.dtype == torch.float32
        assert torch.equal(other.input_range, layer.input_range)
    other = make("int8-tensor", torch.float32)[1]
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), y)
    mf.save(nn.Sequential(layer), tmp_path / "m")
    loaded = mf.load(nn.Sequential(nn.Linear(32, 8)), tmp_path / "m")
    assert type(loaded[0]) is OutlierLinear and torch.equal(loaded(x), y)


@pytest.mark.parametrize(
    ("columns", "shape", "message"),
    [
        ([3, 3], (8, 2), r"outlier_columns \[3, 3\] must ascend and be below K=32"),
        ([3, 32], (8, 2), "must ascend and be below K=32"),
        ([1, 2], (8, 3), r"outlier_weight is torch.float32 \(8, 3\), expected floats \(8, 2\)"),
    ],
)
def test_refuses(columns, shape, message):
    _, layer = make()
    with pytest.raises(ValueError, match=message):
        layer.set_outliers(torch.tensor(columns), torch.zeros(shape))


def test_the_step_finds_the_dimensions_at_the_threshold():
    batches = spiky()
    top = torch.cat(batches).abs().amax(0)
    threshold = top.sort().values[-2].item()
    q = mf.calibrate(net(), batches, f"outliers(threshold={threshold})", "int8-row", "int8-row")
    assert (
        type(q.stem) is OutlierLinear and q.stem.outlier_columns.tolist() == top.topk(2).indices.sort().values.tolist()
    )
    none = mf.calibrate(net(), batches, "outliers(threshold=1e9)", "int8-row", "int8-row")
    assert not any(isinstance(m, OutlierLinear) for m in none.modules())


@pytest.mark.parametrize("then", ["", " + gptq", " + gptq + bias_correction"])
def test_outliers_do_less_harm(then):
    model, batches = net(), spiky()
    with torch.no_grad():
        plain = mse(mf.calibrate(model, batches, then.removeprefix(" + "), "int8-row", "int4-row"), model, batches)
        kept = mse(
            mf.calibrate(model, batches, f"outliers(threshold=30){then}", "int8-row", "int4-row"), model, batches
        )
    assert kept < 0.5 * plain


def test_interrupted_runs_keep_them(tmp_path):
    args = (net(), spiky(), "outliers(threshold=30) + gptq", "int4-row", "int8-row")
    whole, again = (mf.calibrate(*args, resume=tmp_path / "r") for _ in range(2))
    assert type(again.stem) is OutlierLinear and torch.equal(whole(spiky()[0]), again(spiky()[0]))


def test_bad_settings():
    for text in ("outliers(threshold=0)", "outliers(dtype=int8)"):
        with pytest.raises(ValueError, match="threshold=.* must be above 0, and dtype=.* one of float16, float32"):
            mf.ptq.Recipe.parse(text)
    with pytest.raises(ValueError, match="outliers works on float layers, so it comes before"):
        mf.calibrate(clone(net()), vectors(), "gptq + outliers", "int4-row")
