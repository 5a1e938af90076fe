"""mf.linear in torch.compile(fullgraph=True): nothing of it breaks the graph, and the bits are the eager call's."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import minifloat as mf

WEIGHTS = ("int4-row", "mxfp4", "mxfp8-e4m3", "nvfp4", "uint4-g32-bf16-zp", "nf4-tensor")
BACKENDS = pytest.mark.parametrize("backend", ["eager", "aot_eager"])


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch.compiler.reset()


def made(spec="e2m1-g32", n=8, k=64):
    return mf.quantize(torch.randn(n, k), spec)


@BACKENDS
@pytest.mark.parametrize("activation", [None, "int8-row", "mxint8"])
def test_every_batch_size(backend, activation):
    """Weights that nobody has multiplied with before, so that the layout is made while the graph is traced."""
    for spec in WEIGHTS:
        torch.compiler.reset()
        q, bias = made(spec), torch.randn(8)

        def f(x, q=q, bias=bias):
            return mf.linear(x * 2, q, bias, activation).relu()

        compiled = torch.compile(f, fullgraph=True, backend=backend)
        for shape in ((3, 64), (5, 64), (1, 64), (2, 3, 64), (64,), (0, 64)):
            x = torch.randn(shape)
            assert torch.equal(compiled(x), f(x)), (spec, shape)


def test_one_graph_serves_every_batch_size():
    q, graphs = made(), []

    def backend(graph, inputs):
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    compiled = torch.compile(lambda x: mf.linear(x, q), fullgraph=True, dynamic=True, backend=backend)
    for rows in (2, 7, 31):
        x = torch.randn(rows, 64)
        assert torch.equal(compiled(x), mf.linear(x, q))
    assert graphs == [[torch.ops.minifloat.linear.default]]


@BACKENDS
def test_another_weight_is_another_constant(backend):
    """The weight is a constant of the graph, so the graph must not be used for another weight."""

    def f(x, q):
        return mf.linear(x, q, None, "int8-row")

    compiled, x = torch.compile(f, fullgraph=True, backend=backend), torch.randn(3, 64)
    weights = [made() for _ in range(3)]
    for q in (*weights, *weights):
        assert torch.equal(compiled(x, q), f(x, q))

    class Layer(torch.nn.Module):
        def forward(self, x):
            return mf.linear(x, self.q)

    layer = Layer()
    layer.q = weights[0]
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for layer.q in weights:
        assert torch.equal(compiled(x), mf.linear(x, layer.q))


@BACKENDS
def test_layer_with_a_fixed_range(backend):
    layer = mf.nn.QLinear.from_float(torch.nn.Linear(64, 8), "int4-g32", "int8-tensor")
    layer.set_input_range(-1.0, 2.0)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for shape in ((3, 64), (5, 64), (2, 3, 64)):
        x = torch.randn(shape)
        assert torch.equal(compiled(x), layer(x))


def test_gradients():
    q, grads = made(), []
    bias, xs = torch.randn(8, requires_grad=True), torch.randn(3, 64)

    def f(x):
        return mf.linear(x, q, bias, "int8-row").square().sum()

    for run in (f, torch.compile(f, fullgraph=True, backend="aot_eager")):
        x = xs.clone().requires_grad_()
        grads.append(torch.autograd.grad(run(x), (x, bias)))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_inductor():
    q, x = made(), torch.randn(3, 64)

    def f(x):
        return mf.linear(x, q, None, "int8-row")

    assert torch.equal(torch.compile(f, fullgraph=True)(x), f(x))


def test_export():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q = made()

        def forward(self, x):
            return mf.linear(x, self.q)

    layer, rows = Layer(), torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(layer, (torch.randn(4, 64),), dynamic_shapes=({0: rows},), strict=True)
    x = torch.randn(7, 64)
    assert torch.equal(program.module()(x), layer(x))


@pytest.mark.parametrize("activation", [["int8-row"], 8, {}])
def test_activations_that_are_no_spec(activation):
    with pytest.raises(ValueError, match="a quantization spec is a string such as"):
        mf.linear(torch.randn(2, 64), made(), activation=activation)


def test_errors_come_through():
    q, x = made(), torch.randn(2, 64)
    compiled = torch.compile(lambda x: mf.linear(x, q, None, "int8-row-mse"), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="drop '-mse'"):
        compiled(x)


@pytest.mark.parametrize("name", ["linear", "triton_linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shapes_on_a_gpu_that_is_not_here(name, dtype):
    weight, plan = mf.ops.prepare(made(), None)
    with FakeTensorMode() as mode:
        x = torch.empty(5, 3, 64, dtype=dtype, device="cuda")
        there = torch.empty(weight.shape, dtype=torch.uint8, device="cuda")
        y = getattr(torch.ops.minifloat, name)(x, there, mode.from_tensor(plan), None, 8)
        grad = getattr(torch.ops.minifloat, f"{name}_backward")(y, there, mode.from_tensor(plan), 64)
    assert (y.shape, y.dtype, y.device.type) == ((5, 3, 8), dtype, "cuda")
    assert (grad.shape, grad.dtype, grad.device.type) == ((5, 3, 64), dtype, "cuda")


@pytest.mark.parametrize("name", ["linear", "triton_linear"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_gives_bfloat16(name, dtype):
    weight, plan = mf.ops.prepare(made(), None)
    with FakeTensorMode() as mode:
        x, there = (
            torch.empty(5, 64, dtype=dtype, device="cuda"),
            torch.empty(weight.shape, dtype=torch.uint8, device="cuda"),
        )
        y = getattr(torch.ops.minifloat, name)(x, there, mode.from_tensor(plan), None, 8)
        assert (y.shape, y.dtype) == ((5, 8), torch.bfloat16)
