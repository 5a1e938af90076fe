"""GPTQ: smaller output errors than rounding to nearest on the calibration Hessian, for whatever format and layer."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.ptq.gptq import GPTQ, inverse_factor, output_error
from minifloat.ptq.layer import Layer
from minifloat.ptq.run import Run
from ptq.nets import clone, cnn, images, layer_of, mse, net, vectors

SPECS = ["int4-row", "int3-g32", "mxfp4", "mxfp6-e3m2", "mxint8", "nvfp4", "nf4", "e4m3fn-tensor", "ternary-row"]
SPECS += ["uint4-g32-bf16-zp", "int4-tensor", "dynamic8-row", "int4-g32-mse", "flint4-g64"]


def hessian_of(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    rows = layer.rows(x).double()
    return rows.mT @ rows


def errors(layer: Layer, hessian: torch.Tensor, step: GPTQ) -> tuple[float, float]:
    """Of the step itself, without its way out, and of rounding to nearest; recomputed from the weights."""
    found = step._quantize(layer, layer.matrix, hessian).dequantize()
    return output_error(found - layer.matrix, hessian), output_error(
        layer.nearest().dequantize() - layer.matrix, hessian
    )


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_error_is_well_below_rounding_to_nearest(spec, act_order):
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(128, 48), spec)
    hessian = hessian_of(layer, torch.cat(vectors(width=128, rows=256)))
    found, nearest = errors(layer, hessian, GPTQ(act_order=act_order))
    assert found < 0.9 * nearest


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("outputs, groups", [(8, 8), (6, 1), (8, 2)])
def test_convolutions(outputs, groups, act_order):
    torch.manual_seed(0)
    layer = layer_of(nn.Conv2d(8, outputs, 3, groups=groups), "int4-row")
    x = torch.randn(4, 8, 16, 16).cumsum(-1)
    found, nearest = errors(layer, hessian_of(layer, x), GPTQ(act_order=act_order))
    assert found < 0.8 * nearest


def test_output_error_is_the_error_of_outputs():
    torch.manual_seed(0)
    for module, x in ((nn.Linear(16, 4, bias=False), torch.randn(50, 16)),
                      (nn.Conv2d(4, 8, 3, groups=2, bias=False), torch.randn(2, 4, 6, 6))):  # fmt: skip
        layer = layer_of(module, "int4-row")
        moved = clone(module)
        difference = torch.randn(layer.matrix.shape)
        layer_of(moved, "int4-row").set_matrix(layer.matrix + difference)
        expected = (moved(x) - module(x)).double().square().sum().item()
        assert output_error(difference, hessian_of(layer, x)) == pytest.approx(expected, rel=1e-5)


def test_is_the_textbook_algorithm():
    """Column by column with an explicit inverse Hessian, as Optimal Brain Quantization states it (OBQ, equation 2)."""
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(24, 5), "int4-row")
    h = hessian_of(layer, torch.cat(vectors(width=24)))
    damped = h[0] + 0.01 * h[0].diagonal().mean() * torch.eye(24)
    w, inverse = layer.matrix.double(), damped.inverse()
    scales = layer.find_scales()
    for k in range(24):
        column = scales.round(w.float())[:, k].double()
        error = (w[:, k] - column) / inverse[k, k]
        w = w - error[:, None] * inverse[k]
        w[:, k] = column
        inverse = inverse - torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]
        inverse[k], inverse[:, k] = 0, 0
    for block in (1, 7, 128):
        q = GPTQ(block=block)._quantize(layer, layer.matrix, h)
        torch.testing.assert_close(q.dequantize().double(), w, rtol=1e-5, atol=1e-6)


def test_groups_get_their_scales_when_they_are_reached():
    """So the second group's scale fits what the first one's errors have made of its weights."""
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(64, 8), "e2m1-g32-e8m0")
    hessian = hessian_of(layer, torch.cat(vectors(width=64)))
    q, before = GPTQ()._quantize(layer, layer.matrix, hessian), layer.find_scales()
    assert torch.equal(q.scales[:, 0], before.values[:, 0]) and not torch.equal(q.scales[:, 1], before.values[:, 1])
    ordered = GPTQ(act_order=True)._quantize(layer, layer.matrix, hessian)
    assert torch.equal(ordered.scales, before.values)


def test_act_order_takes_columns_by_falling_hessian_diagonal():
    """With one scale a row it is plain GPTQ on inputs put into that order beforehand."""
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(32, 8), "int3-row")
    hessian = hessian_of(layer, torch.cat(vectors(width=32)))
    order = hessian[0].diagonal().argsort(descending=True)
    assert not torch.equal(order, torch.arange(32))
    found = GPTQ(act_order=True)._quantize(layer, layer.matrix, hessian).dequantize()
    moved = layer_of(nn.Linear(32, 8), "int3-row")
    moved.set_matrix(layer.matrix[:, order])
    expected = GPTQ()._quantize(moved, moved.matrix, hessian[:, order][:, :, order]).dequantize()
    torch.testing.assert_close(found[:, order], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "hessian", [torch.zeros(1, 32, 32), torch.ones(1, 32, 32), torch.diag_embed(torch.arange(32.0))[None]]
)
def test_singular_hessians(hessian):
    layer = layer_of(nn.Linear(32, 4), "int4-row")
    q = GPTQ(damp=1e-9).quantize(layer, hessian.double())
    d = [output_error(x.dequantize() - layer.matrix, hessian) for x in (q, layer.nearest())]
    assert d[0] <= d[1]
    factor = inverse_factor(hessian.double(), 0.01)[0]
    assert factor.isfinite().all() and torch.equal(factor, factor.triu())


def test_a_worse_result_is_not_taken():
    layer = layer_of(nn.Linear(16, 4), "int4-row")
    step = GPTQ()
    object.__setattr__(step, "_quantize", lambda layer, w, h: mf.quantize(torch.zeros(4, 16), "int4-row"))
    q = step.quantize(layer, torch.eye(16, dtype=torch.float64)[None])
    assert torch.equal(q.dequantize(), layer.nearest().dequantize())


@pytest.mark.parametrize("true_order", [True, False])
@pytest.mark.parametrize(
    ("make", "data", "weight"), [(net, vectors, "int3-row"), (net, vectors, "mxfp4"), (cnn, images, "int3-row")]
)
def test_whole_models(make, data, weight, true_order):
    batches = data(8)
    with torch.no_grad():
        nearest = mse(mf.calibrate(make(), batches, "", weight, "int8-row", kinds=kinds_of(weight)), make(), batches)
        recipe = f"gptq(true_order={true_order})"
        found = mse(mf.calibrate(make(), batches, recipe, weight, "int8-row", kinds=kinds_of(weight)), make(), batches)
    assert found < 0.7 * nearest


def test_layers_with_the_same_input_take_one_pass(monkeypatch):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.o = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x):
            return self.o(self.q(x) * self.k(x))

    torch.manual_seed(0)
    model, passes, seen = nn.Sequential(Attention(), nn.Linear(32, 4)), [], []
    real, quantize = Run.collect, GPTQ.quantize
    monkeypatch.setattr(Run, "collect", lambda self, given: passes.append([x.name for x in given]) or real(self, given))
    monkeypatch.setattr(GPTQ, "quantize", lambda self, x, h: seen.append((x.name, h)) or quantize(self, x, h))
    mf.calibrate(model, vectors(), "gptq", "int4-row")
    assert passes == [["0.q"], ["0.o"], ["1"]] and [name for name, _ in seen] == ["0.q", "0.k", "0.o", "1"]
    assert seen[0][1] is seen[1][1] and seen[2][1] is not seen[0][1]


def kinds_of(weight):
    return ("linear",) if weight == "mxfp4" else ("linear", "conv2d")
