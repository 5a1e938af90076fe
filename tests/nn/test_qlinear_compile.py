"""QLinear under torch.compile, torch.export and functional_call gives the bits of the eager call."""

import io

import pytest
import torch
from torch import nn

from minifloat.nn import QLinear

WHERE = pytest.mark.parametrize(("weight", "activation"), [("e2m1-g32-e8m0", "int8-row"), ("uint4-g32-bf16-zp", None)])


def make(weight, activation):
    torch.manual_seed(0)
    return nn.Sequential(QLinear.from_float(nn.Linear(32, 8), weight, activation), nn.GELU()).eval()


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch.compiler.reset()


@WHERE
def test_compile_fullgraph(weight, activation):
    model = make(weight, activation)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for rows in (1, 3, 5):  # the second recompiles with a dynamic size, the third reuses it
        x = torch.randn(rows, 32)
        assert torch.equal(compiled(x), model(x))


@pytest.mark.parametrize("grad", [False, True])
def test_compile_with_inductor(grad):
    layer = make("e2m1-g32-e8m0", "int8-row")[0]
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.randn(3, 32)
    with torch.set_grad_enabled(grad):
        assert torch.equal(compiled(x), layer(x))


@WHERE
def test_compiled_gradients(weight, activation):
    model = make(weight, activation)
    xs = [torch.linspace(-1, 1, 96).reshape(3, 32).requires_grad_() for _ in range(2)]
    grads = []
    for run, x in zip((model, torch.compile(model, fullgraph=True, backend="aot_eager")), xs, strict=True):
        model.zero_grad()
        run(x).square().sum().backward()
        grads.append((x.grad, model[0].bias.grad.clone()))
    torch.testing.assert_close(grads[0], grads[1])


def test_a_compiled_layer_sees_loaded_values():
    layer, other = make("int4-g32", "int8-row")[0], QLinear.from_float(nn.Linear(32, 8), "int4-g32", "int8-row")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 32)
    compiled(x)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(compiled(x), other(x))


@WHERE
@pytest.mark.parametrize("strict", [False, True])
def test_export(weight, activation, strict):
    model = make(weight, activation)
    rows = torch.export.Dim("rows", min=1, max=64)
    exported = torch.export.export(model, (torch.randn(4, 32),), dynamic_shapes=({0: rows},), strict=strict)
    assert [n.target for n in exported.graph.nodes if "minifloat" in str(n.target)] == [
        torch.ops.minifloat.linear.default
    ]
    for count in (1, 7):
        x = torch.randn(count, 32)
        assert torch.equal(exported.module()(x), model(x))


def test_export_can_be_saved():
    model, x, file = make("e2m1-g32-e8m0", "int8-row"), torch.randn(4, 32), io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), file)
    file.seek(0)
    assert torch.equal(torch.export.load(file).module()(x), model(x))


def test_functional_call():
    a, b = make("int4-g32", None), make("int4-g32", None)
    b[0].load_state_dict(QLinear.from_float(nn.Linear(32, 8), "int4-g32").state_dict())
    x = torch.randn(2, 32)
    tensors = {**dict(b.named_parameters()), **dict(b.named_buffers())}
    assert torch.equal(torch.func.functional_call(a, tensors, (x,)), b(x)) and not torch.equal(a(x), b(x))
