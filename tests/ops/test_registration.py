"""The ops as PyTorch sees them: schemas, fakes, gradients, compile; and the choice of instruction set."""

import os
import subprocess
import sys

import pytest
import torch

import minifloat as mf


@pytest.mark.parametrize("activation", [None, "int8-row"])
def test_opcheck(activation):
    q = mf.quantize(torch.randn(8, 64), "e2m1-g32-e8m0")
    activation = None if activation is None else mf.QuantSpec.parse(activation)
    weight, plan = mf.ops.prepare(q, activation)
    x = torch.randn(3, 64, requires_grad=True)
    bias = torch.randn(8, requires_grad=True)
    torch.library.opcheck(torch.ops.minifloat.linear.default, (x, weight, plan, bias, 8))
    torch.library.opcheck(torch.ops.minifloat.linear_backward.default, (torch.randn(3, 8), weight, plan, 64))
    torch.library.opcheck(torch.ops.minifloat.pack.default, (q.codes, 4))
    torch.library.opcheck(torch.ops.minifloat.unpack.default, (q.packed, 4, 64))


@pytest.mark.parametrize("activation", [None, "int8-row"])
def test_gradients(activation):
    q = mf.quantize(torch.randn(8, 64), "int4-g32")
    x, bias = torch.randn(2, 3, 64, requires_grad=True), torch.randn(8, requires_grad=True)
    grad = torch.randn(2, 3, 8)
    mf.linear(x, q, bias, activation).backward(grad)
    torch.testing.assert_close(x.grad, grad @ q.dequantize())
    torch.testing.assert_close(bias.grad, grad.sum((0, 1)))


def test_compile_fullgraph():
    q = mf.quantize(torch.randn(8, 64), "int4-g32")
    weight, plan = mf.ops.prepare(q, mf.QuantSpec.parse("int8-row"))

    def f(x):
        return torch.ops.minifloat.linear(x * 2, weight, plan, None, 8).relu()

    x = torch.randn(5, 64)
    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(x), f(x))


def run(isa):
    script = "import minifloat as mf; print(mf.ops.isa())"
    return subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "MINIFLOAT_ISA": isa}, capture_output=True, text=True
    )


def test_isa_from_the_environment():
    assert run("scalar").stdout.strip() == "scalar"
    failed = run("sse9")
    assert failed.returncode and "MINIFLOAT_ISA=sse9 but this CPU supports: scalar" in failed.stderr


def test_bad_arguments():
    q = mf.quantize(torch.randn(8, 64), "int4-g32")
    weight, plan = mf.ops.prepare(q, None)
    linear = torch.ops.minifloat.linear
    x = torch.randn(3, 64)
    cases = [
        (lambda: mf.linear(torch.randn(3, 60), q), "but the weight has K=64"),
        (lambda: mf.linear(x.double(), q), "x is Double; expected float32"),
        (lambda: mf.linear(x, q, torch.randn(7)), r"bias has shape \[7\], expected \[8\]"),
        (lambda: mf.linear(x, q, backend="tpu"), "backend 'tpu' is unknown; usable here: cpu"),
        (lambda: mf.linear(x, q, activation="int8-row-mse"), "drop '-mse'"),
        (lambda: mf.linear(x, q, activation="e4m3-row"), "did you mean 'e4m3fn'"),
        (lambda: mf.linear(x, q, activation="int8-g48"), "K=64 is not a multiple of the group size 48"),
        (lambda: mf.quantize(torch.randn(8, 60), "int4-g32"), "K=60 is not a multiple of the group size 32"),
        (lambda: mf.quantize(torch.randn(8, 16), "int4-g32"), "K=16 is smaller than the group size 32"),
        (lambda: mf.quantize(torch.tensor([[1.0, float("nan")]]), "int4-row"), r"w holds nan at \(0, 1\)"),
        (lambda: mf.quantize(torch.randn(8, 64).double(), "int4-row"), "got torch.float64"),
        (lambda: linear(x, weight[:-1], plan, None, 8), "the packed weight must be"),
        (lambda: linear(x, weight, plan[1:], None, 8), "not a plan of this version"),
        (lambda: linear(x, weight, torch.zeros_like(plan), None, 8), "not a plan of this version"),
        (lambda: linear(x, weight, plan, None, 9), "out_features=9 but the weight has N=8"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", ["scalar", "avx2", "avxvnni", "avx512vnni"])
def test_instruction_set_is_here(name):
    """The other tests run on what this CPU has; this one shows what that leaves out."""
    if name not in mf.ops.supported_isas():
        pytest.skip(f"{name} kernels were not run: this CPU supports {', '.join(mf.ops.supported_isas())}")
    before = mf.ops.isa()
    mf.ops.select_isa(name)
    assert mf.ops.isa() == name
    mf.ops.select_isa(before)
