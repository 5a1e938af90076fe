"""QLinear on CUDA tensors, on whichever backend has the CUDA key: Triton where no CUDA kernels were built."""

import copy
import pickle

import pytest
import torch
from torch import nn

import minifloat as mf
from triton_backend.device import DEVICE

if DEVICE != "cuda":
    pytest.skip("no GPU: QLinear moves between the CPU's kernels and a GPU's here", allow_module_level=True)


@pytest.mark.parametrize(
    ("weight", "activation"), [("e2m1-g32-e8m0", "int8-row"), ("nvfp4", None), ("uint4-g32-zp", None)]
)
def test_moves_and_keeps_its_bits(weight, activation):
    layer = mf.nn.QLinear.from_float(nn.Linear(96, 40), weight, activation)
    x, here = torch.randn(3, 96), layer.qtensor
    want = layer(x)
    layer = copy.deepcopy(pickle.loads(pickle.dumps(layer.cuda())))
    there = layer.qtensor
    assert torch.equal(there.packed.cpu(), here.packed) and torch.equal(there.scale_data.cpu(), here.scale_data)
    y = layer(x.cuda()).cpu()
    if activation:
        assert torch.equal(y, want)
    else:
        real = x.double() @ torch.from_numpy(mf.emulator.dequantize(here)).T + layer.bias.detach().cpu().double()
        bound = torch.from_numpy(mf.emulator.float_bound(x, here, layer.bias.detach().cpu()))
        assert ((y.double() - real).abs() <= bound).all()
    compiled = torch.compile(layer, fullgraph=True)
    assert torch.equal(compiled(x.cuda()), layer(x.cuda()))
    assert torch.equal(layer.cpu()(x), want)


def test_planes_move_and_keep_their_bits():
    linear, x = nn.Linear(256, 40), torch.randn(3, 256)
    layer = mf.nn.BinaryCodedLinear.from_float(linear, 3, 128, activation="int8-row")
    want, weight = layer(x), layer.weight
    layer = layer.cuda()
    assert torch.equal(layer(x.cuda()).cpu(), want) and torch.equal(layer.weight.cpu(), weight)
    there = mf.nn.BinaryCodedLinear.from_float(copy.deepcopy(linear).cuda(), 3, 128, activation="int8-row")
    errors = [(found.cpu() - linear.weight.detach()).square().sum() for found in (weight, there.weight)]
    assert abs(errors[1] / errors[0] - 1) < 0.01  # sums of another order may choose other scales
    assert torch.equal(layer.cpu()(x), want)


def test_quantize_on_the_device_equals_the_cpu():
    w = torch.randn(33, 96)
    for spec in ("int4-g32", "mxfp4", "nvfp4", "e4m3fn-row", "nf4-g32"):
        a, b = mf.quantize(w, spec), mf.quantize(w.cuda(), spec)
        assert torch.equal(a.codes, b.codes.cpu()) and torch.equal(a.scales, b.scales.cpu())


def test_cuda_graph():
    layer = mf.nn.QLinear.from_float(nn.Linear(256, 128), "e2m1-g32-e8m0", "int8-row").cuda()
    x = torch.randn(4, 256, device="cuda")
    layer(x)  # compiles the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
    x.copy_(torch.randn(4, 256))
    graph.replay()
    assert torch.equal(y, layer(x))
