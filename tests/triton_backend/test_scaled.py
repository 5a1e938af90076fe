"""8-bit float x on block-scaled tensor cores: on a GPU that has them, or interpreted with a twin of tl.dot_scaled."""

import numpy as np
import pytest
import torch

import minifloat as mf
from minifloat.kernels.triton import configs
from minifloat.ops import triton
from triton_backend.device import DEVICE, to_device

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
WEIGHTS = ("e2m1-g32-e8m0", "e4m3fn-g32-e8m0", "e5m2-g32-e8m0", "e2m1-g96-e8m0")
SHAPES = ((3, 37, 96), (19, 130, 288))  # (M, N, K): one product of 128 k's that ends early, several


def decoded(data, name):
    """float32: what codes are worth, 4 bits two in a byte."""
    if name == "e2m1":
        data = np.stack([data & 15, data >> 4], -1).reshape(data.shape[0], -1)
    return mf.Format.parse({"e4m3": "e4m3fn"}.get(name, name)).values.astype(np.float32)[data]


def constant(check):
    """Triton's own checks of tl.dot_scaled take names of formats for constants, which the interpreter does not make."""
    from triton.language import constexpr

    def dot_scaled(self, *arguments):
        return check(self, *(constexpr(a) if isinstance(a, str) else a for a in arguments))

    return dot_scaled


def twin(cuts):
    """tl.dot_scaled as Triton documents it, its sums in float32; the interpreter has none.

    cuts: every 32 products and the sum so far are added as on Blackwell instead (docs/numerics.md): each cut to 25 bits
        after the first of the largest, then added exactly and cut to float32.
    """
    from triton._C.libtriton import ir
    from triton.language import float32
    from triton.runtime.interpreter import TensorHandle

    names = {getattr(ir.ScaleDotElemTypeTY, name.upper()): name for name in ("e2m1", "e4m3", "e5m2")}

    def create_dot_scaled(self, a, a_scale, a_format, b, b_scale, b_format, fast_math, a_packed, b_packed, acc):
        assert a_packed and b_packed and not fast_math
        left, right = decoded(a.data, names[a_format]), decoded(b.data.T, names[b_format]).T
        left = left * np.exp2(a_scale.data.astype(np.float32) - 127).repeat(32, 1)
        right = right * np.exp2(b_scale.data.astype(np.float32) - 127).repeat(32, 1).T
        if not cuts:
            return TensorHandle(acc.data + left @ right, float32)
        total = acc.data.astype(np.float64)
        for k in range(0, left.shape[1], 32):
            terms = left[:, k : k + 32, None].astype(np.float64) * right[None, k : k + 32]
            terms = np.concatenate([terms, total[:, None]], 1)
            total = cut(terms, 25, np.abs(terms).max(1, keepdims=True)).sum(1)
            total = cut(total, 23, total)
        return TensorHandle(total.astype(np.float32), float32)

    return create_dot_scaled


def cut(x, bits, largest):
    """Toward zero, to so many bits after the first of `largest`."""
    unit = np.exp2(np.frexp(largest)[1] - 1.0 - bits)
    return np.trunc(x / unit) * unit


@pytest.fixture(params=["float32 sums", "cut sums"], autouse=True)
def _scaled(request, monkeypatch):
    """Makes gemm_scaled run, here with a twin of its product, and sees that it does."""
    problems, choose = [], configs.choose
    if DEVICE == "cpu":
        from triton.language.semantic import TritonSemantic
        from triton.runtime.interpreter import InterpreterBuilder

        monkeypatch.setattr(TritonSemantic, "dot_scaled", constant(TritonSemantic.dot_scaled))
        monkeypatch.setattr(InterpreterBuilder, "create_dot_scaled", twin(request.param == "cut sums"), raising=False)
        monkeypatch.setattr(triton, "gpu_of", lambda device: configs.Gpu("", "", 0, "sm_100"))
    elif not triton.gpu_of(torch.device(DEVICE, torch.cuda.current_device())).scaled_target:
        pytest.skip("this GPU has no block-scaled tensor cores that are used: 10.x has")
    elif request.param == "cut sums":
        pytest.skip("how the GPU adds is not to be chosen")
    monkeypatch.setattr(configs, "choose", lambda problem, gpu: problems.append(problem) or choose(problem, gpu))
    yield
    assert problems and {problem.kernel for problem in problems if problem.m > 2} == {"gemm_scaled"}


def run(x, q, bias=None):
    there = None if bias is None else bias.to(DEVICE)
    y = mf.linear(x.to(DEVICE), to_device(q), there, backend="triton").cpu()
    assert y.dtype == torch.bfloat16
    return y.double().numpy()


def check(x, q, bias, y):
    real = x.double().numpy() @ mf.emulator.dequantize(q).T + bias.double().numpy()
    bound = mf.emulator.float_bound(x, q, bias)
    assert (np.abs(y - real) <= bound + 2.0**-8 * (np.abs(real) + bound)).all()


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_within_the_bound(weight, dtype):
    for m, n, k in SHAPES:
        q, x, bias = mf.quantize(torch.randn(n, k), weight), torch.randn(m, k).to(dtype), torch.randn(n)
        check(x, q, bias, run(x, q, bias))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_every_code_meets_its_k_and_its_scale(weight):
    """x is 1 at one k: each y is one weight, exactly. Scales differ from group to group and row to row."""
    k = 288
    f, groups = mf.Format.parse(weight.split("-")[0]), k // int(weight.split("-")[1][1:])
    numbers = torch.from_numpy(np.flatnonzero(np.isfinite(f.values)))
    codes = numbers[torch.arange(33 * k).reshape(33, k) % len(numbers)].byte()
    scales = torch.randint(100, 150, (33, groups), dtype=torch.uint8)
    q = mf.QTensor(weight, (33, k), torch.ops.minifloat.pack(codes, f.bits), scales)
    y = run(torch.eye(k).to(E4M3), q)
    assert np.array_equal(y, mf.emulator.dequantize(q).T)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_agrees_with_the_portable_route(dtype):
    q, x, bias = mf.quantize(torch.randn(37, 160), "mxfp4"), torch.randn(3, 160).to(dtype), torch.randn(37)
    y = run(x, q, bias)
    widened = [run(x[:2], q, bias), run(x[2:], q, bias)]  # so few rows go through gemv_float
    check(x, q, bias, np.concatenate(widened))
    scale = np.abs(x.double().numpy()) @ np.abs(mf.emulator.dequantize(q)).T + np.abs(bias.double().numpy())
    assert (np.abs(y - np.concatenate(widened)) <= 2.0**-7 * scale).all()


@pytest.mark.parametrize("weight", WEIGHTS)
def test_split_k(monkeypatch, weight):
    """Parts of K, before y is rounded to bfloat16: so the float32 sums are seen to keep the bound by themselves.

    All terms are positive: what is cut off adds up.
    """
    from minifloat.kernels.triton import gemm_scaled

    choose, reduce_parts, seen = configs.choose, gemm_scaled.reduce_parts, []
    monkeypatch.setattr(gemm_scaled, "reduce_parts", lambda *of: seen.append(of[0].cpu()) or reduce_parts(*of))
    q, x, bias = mf.quantize(torch.rand(9, 1056), weight), torch.rand(3, 1056).to(E4M3), torch.randn(9)
    real, bound = x.double().numpy() @ mf.emulator.dequantize(q).T, mf.emulator.float_bound(x, q)
    for split in (4, 8):
        config = configs.Config(128, 16, split, 4, 3, 4)
        monkeypatch.setattr(configs, "choose", lambda *of, config=config: choose(*of) and config)
        check(x, q, bias, run(x, q, bias))
    assert [parts.shape for parts in seen] == [(split, 3, 9) for split in (4, 8)]
    for parts in seen:
        assert (np.abs(parts.double().numpy().sum(0) - real) <= bound).all()


def test_nan_stays_in_its_row():
    x, q = torch.randn(20, 256), mf.quantize(torch.randn(16, 256), "mxfp4")
    x[3, 100] = float("nan")
    for dtype in (E4M3, E5M2):
        y = run(x.to(dtype), q)
        assert np.isnan(y[3]).all() and np.isfinite(y[:3]).all() and np.isfinite(y[4:]).all()
