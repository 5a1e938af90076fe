"""minifloat._C.linear is torch.ops.minifloat.linear to everybody who looks: modes, subclasses, tracers and errors."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import minifloat as mf
from minifloat import _C

OP = torch.ops.minifloat.linear.default


@pytest.fixture
def arguments():
    weight, plan = mf.ops.prepare(mf.quantize(torch.randn(20, 64), "e2m1-row"), mf.QuantSpec.parse("int8-row"))
    return [torch.randn(3, 64), weight, plan, torch.randn(20), 20]


@pytest.fixture
def layer():
    return mf.nn.QLinear.from_float(torch.nn.Linear(64, 20), "e2m1-row", "int8-row")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64,), (0, 64), (1, 64), (2, 3, 64)])
def test_same_output(arguments, shape, dtype, bias):
    arguments[0] = torch.randn(shape).to(dtype)
    arguments[3] = arguments[3] if bias else None
    with torch.inference_mode():
        got, expected = _C.linear(*arguments), OP(*arguments)
    assert got.dtype == dtype and torch.equal(got, expected)


def test_gradients(arguments):
    grads = []
    for call in (_C.linear, OP):
        x, bias = arguments[0].clone().requires_grad_(), torch.nn.Parameter(arguments[3].clone())
        call(x, *arguments[1:3], bias, 20).square().sum().backward()
        grads.append((x.grad, bias.grad))
    assert all(torch.equal(got, expected) for got, expected in zip(*grads, strict=True))


@pytest.mark.parametrize(
    ("mode", "method"), [(TorchFunctionMode, "__torch_function__"), (TorchDispatchMode, "__torch_dispatch__")]
)
def test_modes_see_the_op(layer, mode, method):
    functions = []

    def see(self, function, types, args=(), kwargs=None):
        functions.append(function)
        return function(*args, **(kwargs or {}))

    with type("Seen", (mode,), {method: see})():
        layer(torch.ones(64))
    assert OP in functions


def test_a_subclass_of_tensor_sees_the_op(layer):
    class Seen(torch.Tensor):
        functions = []

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.functions.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

    y = layer(torch.ones(64).as_subclass(Seen))
    assert isinstance(y, Seen) and OP in Seen.functions


def test_a_symbolic_trace_holds_the_op(layer):
    traced = torch.fx.symbolic_trace(layer)
    assert OP in {node.target for node in traced.graph.nodes}
    x = torch.randn(3, 64)
    assert torch.equal(traced(x), layer(x))


@pytest.mark.parametrize(
    "change",
    [
        {0: [1.0]},
        {1: None},
        {2: "plan"},
        {3: 1},
        {4: 20.5},
        {4: 2**70},
        {4: 21},
        {0: torch.ones(3, 63)},
        {0: torch.ones(3, 64, dtype=torch.int32)},
    ],
)
def test_the_same_errors(arguments, change):
    for at, value in change.items():
        arguments[at] = value
    errors = []
    for call in (_C.linear, OP):
        with pytest.raises(Exception) as error:  # noqa: PT011 - whatever the op raises
            call(*arguments)
        errors.append(error)
    got, expected = errors
    assert got.type is expected.type and str(got.value).splitlines()[0] == str(expected.value).splitlines()[0]


def test_too_few_arguments(arguments):
    with pytest.raises(RuntimeError, match="missing value for argument 'out_features'"):
        _C.linear(*arguments[:4])
