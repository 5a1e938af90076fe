"""What is multiplied on a GPU to test each route of the CUDA kernels, and how results are checked. No test itself.

tests/cuda/test_gpu_cases.py shows without a GPU that every case takes the route it is listed under.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import minifloat as mf
from checks import assert_within_float_bound
from minifloat.nn.prepared import on_device
from minifloat.ops import cuda

ONE_DIGIT = (
    *("binary-row", "ternary-g32", "int2-g32", "uint3-row", "int3-g64-bf16", "int4-g128", "uint4-g32-zp", "e2m1-row"),
    *("mxfp4", "e3m0-row", "int5-row", "e2m2-g32", "mxfp6-e2m3", "int6-g64", "int7-tensor", "e2m4-row", "int8-row"),
    *("uint8-g32-zp", "e1m6-row"),
)
HALF_BLOCKS = ("nvfp4", "ternary-g16", "int6-g16", "uint8-g16-zp")  # groups of 16
TWO_DIGITS = ("e3m1-row", "mxfp6-e3m2", "e3m3-g64", "e2m5-row", "e3m4-g32")
FLOAT = (*ONE_DIGIT, *HALF_BLOCKS, *TWO_DIGITS, "e4m3fn-row", "e5m2-row", "ue4m4-row", "flint4-row")
IN_FLOAT32 = ("nf4-g64", "dynamic8-row")  # no 16-bit type holds their values
FLOAT8 = ("e2m1-g32", "int4-g128", "e3m2-row", "e4m3fn-row", "e4m3fn-g32")
ACTIVATIONS = ("int8-row", "mxint8", "e2m3-row", "int8-tensor")
FEW = ((1, 17, 256), (8, 1000, 768))
MANY = ((70, 130, 512), (300, 64, 1280))
LARGE = (1100, 2000, 512)  # enough blocks for the larger tiles of linear_warpgroup, which rows and outputs do not fill


@dataclass(frozen=True)
class Case:
    weight: str
    activation: str | None
    m: int
    n: int
    k: int
    dtype: torch.dtype = torch.float32
    prefer: str = ""

    def __str__(self) -> str:
        x = self.activation or str(self.dtype).removeprefix("torch.")
        return f"{self.weight}-{x}-{self.m}x{self.n}x{self.k}"


def _cases(weights, activations, shapes, dtype=torch.float32, prefer="") -> list[Case]:
    """Every weight with every shape; the activations take turns."""
    return [
        Case(weight, activations[(i + j) % len(activations)], *shape, dtype, prefer)
        for i, weight in enumerate(weights)
        for j, shape in enumerate(shapes)
    ]


def _odd(activation, m, dtype=torch.float32, prefer="") -> list[Case]:
    weights = ("e3m2-row",) if activation and activation.startswith("e3") else ("e2m1-row", "int3-row", "int5-row")
    return [Case(weight, activation, m, 19, k, dtype, prefer) for weight in weights for k in (1, 97, 1031)]


def _routes() -> dict[str, list[Case]]:
    routes = {
        "narrow.int8": _cases((*ONE_DIGIT, *HALF_BLOCKS), (*ACTIVATIONS, "nvfp4"), FEW)
        + _cases(("int4-row", "int8-row"), ("int8-row",), ((16, 33, 384),))
        + _odd("int8-row", 3),
        "narrow.int16": _cases(TWO_DIGITS, ACTIVATIONS, FEW) + _odd("e3m2-row", 3),
        "wide.int8": _cases((*ONE_DIGIT, *HALF_BLOCKS), (*ACTIVATIONS, "nvfp4"), MANY, prefer="wide")
        + _odd("int8-row", 33, prefer="wide")
        + [Case("int4-g128", "int8-row", *LARGE, prefer="wide")],
        "warpgroup.int8": _cases(ONE_DIGIT, ACTIVATIONS, MANY)
        + _odd("int8-row", 33)
        + [Case(weight, "int8-row", *LARGE) for weight in ("int4-g128", "int8-row")],
        "warpgroup.int16": _cases(TWO_DIGITS, ACTIVATIONS, MANY) + [Case("e3m2-row", "int8-row", *LARGE)],
        "warpgroup.float8": _cases(FLOAT8, (None,), (*MANY, LARGE), torch.float8_e4m3fn),
        "lanes.float32": _cases((*FLOAT, *IN_FLOAT32, "e7m0-row"), (None,), FEW, prefer="usual")
        + _cases(IN_FLOAT32, (None,), FEW, torch.float16)
        + _odd(None, 3),
        "multiply.float32": _cases(("e2m1-g32", "nf4-g64", "int8-row"), (None,), MANY),
        "tables.float32": [
            Case(weight, None, *shape, dtype, "tables")
            for weight in ("binary-row", "binary-g128", "int1-g64", "uint1-tensor")
            for dtype in (torch.float32, torch.float16, torch.bfloat16)
            for shape in ((1, 17, 384), (1, 1000, 9216), (8, 130, 512))
        ],
        "bits.int8": [
            Case(weight, activation, *shape, prefer="bits")
            for weight in ("binary-row", "ternary-g128", "int2-row", "uint2-g128-zp")
            for activation in ("binary-row", "ternary-row", "int2-g128", "int2-row-bf16")
            for shape in ((3, 17, 384), (70, 130, 2560), (1100, 200, 512))
        ],
    }
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        routes[f"narrow.{name}"] = _cases(FLOAT, (None,), (*FEW, (16, 33, 384)), dtype, "usual") + _odd(None, 3, dtype)
        terms = {torch.float16: 2, torch.bfloat16: 3}[dtype]
        routes[f"narrow.{name}x{terms}"] = _cases(
            IN_FLOAT32, (None,), ((9, 17, 256), (16, 1000, 768), (70, 33, 512)), dtype
        )
        routes[f"wide.{name}"] = _cases(FLOAT, (None,), MANY, dtype, "wide") + _odd(None, 33, dtype, "wide")
        routes[f"warpgroup.{name}"] = (
            _cases(FLOAT, (None,), MANY, dtype)
            + _odd(None, 33, dtype)
            + [Case(weight, None, *LARGE, dtype) for weight in ("e2m1-g32", "int8-row")]
        )
        routes[f"product.{name}"] = [
            Case(weight, None, *shape, dtype, "product")
            for weight in ("int4-row", "uint3-row-zp", "e2m1-tensor", "e4m3fn-row")
            for shape in ((3, 17, 97), (300, 130, 2560), (2100, 1000, 512))
        ]
    return routes


ROUTES = _routes()


def _steady(route, weight, activation, m, dtype=torch.float16, prefer=""):
    return route, Case(weight, activation, m, 256, 4096, dtype, prefer)


# A case or two of each route, to be repeated, captured and run on two streams. With so few outputs and so many k's the
# routes for many rows split K, where its order is free.
STEADY = (
    _steady("narrow.int8", "e2m1-g32", "int8-g32", 4),
    _steady("narrow.int8", "e2m1-row", "nvfp4", 1),
    _steady("narrow.int16", "e3m2-row", "int8-row", 4),
    _steady("narrow.float16", "int4-g128", None, 4),
    _steady("narrow.float16x2", "nf4-g64", None, 16),
    _steady("narrow.bfloat16x3", "nf4-g64", None, 16, torch.bfloat16),
    _steady("lanes.float32", "nf4-g64", None, 4),
    _steady("tables.float32", "binary-g128", None, 1, prefer="tables"),
    _steady("wide.int8", "int8-row", "int8-row", 40, prefer="wide"),
    _steady("wide.int8", "int8-row", "nvfp4", 40, prefer="wide"),
    _steady("wide.float16", "int4-g128", None, 40, prefer="wide"),
    _steady("warpgroup.int8", "e2m1-g32", "int8-g32", 48),
    _steady("warpgroup.int8", "int8-row", "int8-row", 40),
    _steady("warpgroup.int16", "e3m2-row", "int8-row", 40),
    _steady("warpgroup.float16", "int4-g128", None, 48),
    _steady("warpgroup.float8", "e2m1-g32", None, 40, torch.float8_e4m3fn),
    _steady("bits.int8", "int2-row", "int2-row", 40, prefer="bits"),
    _steady("product.float16", "int4-row", None, 40, prefer="product"),
)


def make(case: Case, seed: int = 0):
    """(q, x, bias, activation) on the CPU, random and repeatable."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(case.n, case.k, generator=generator) * torch.rand(case.n, 1, generator=generator)
    x = torch.randn(case.m, case.k, generator=generator).to(case.dtype)
    bias = torch.randn(case.n, generator=generator)
    return (
        mf.quantize(w, case.weight),
        x,
        bias.to(case.dtype if case.dtype.itemsize > 1 else torch.float32),
        case.activation,
    )


def on_gpu(q, x, bias, activation):
    bias = None if bias is None else bias.cuda()
    return mf.linear(x.cuda(), on_device(q, torch.device("cuda")), bias, activation).cpu()


def check_exact(q, x, bias, activation):
    got, want = on_gpu(q, x, bias, activation), mf.emulator.linear(x, q, bias, activation)
    assert got.dtype == want.dtype and got.shape == want.shape
    different = (got != want) & ~(got.isnan() & want.isnan())
    if different.any():
        at = different.nonzero()
        rows, outputs = at[:, 0].unique().tolist(), at[:, 1].unique().tolist()
        first = tuple(at[0].tolist())
        raise AssertionError(
            f"{len(at)} of {want.numel()} differ, first {got[first]} for {want[first]} at {first}; "
            f"{len(rows)} rows {rows[:20]}, {len(outputs)} outputs {outputs[:20]}"
        )


def check_float(q, x, bias):
    assert_within_float_bound(on_gpu(q, x, bias, None), q, x, bias)


def check_float8(q, x, bias):
    """As they are on a GPU that multiplies them, else widened; the bound of the former holds for both."""
    y = on_gpu(q, x, bias, None)
    assert y.dtype == torch.bfloat16
    v, w, sums = x.double().numpy(), mf.emulator.dequantize(q), 139 * 2.0**-13
    exact = v @ w.T + bias.double().numpy()
    bound = mf.emulator.float_bound(v, q, bias) * (1 + sums) + sums * (np.abs(v) @ np.abs(w).T)
    bound += 2.0**-9 * (np.abs(exact) + bound)
    assert (np.abs(y.double().numpy() - exact) <= bound).all()


def check(case: Case, seed: int = 0):
    q, x, bias, activation = make(case, seed)
    with cuda.preferred(case.prefer):
        if activation:
            check_exact(q, x, bias, activation)
        elif case.dtype.itemsize == 1:
            check_float8(q, x, bias)
        else:
            check_float(q, x, bias)
