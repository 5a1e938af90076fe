"""Who is measured: each contender makes `copies` callables, every one with a weight of its own."""

from __future__ import annotations

import torch

import minifloat as mf
from minifloat.nn.prepared import on_device
from minifloat.ops import cuda

from .measure import NotHere


def ours(weight: str, activation: str | None, kernels: str = ""):
    """minifloat's op, the weights prepared once as a layer does; "float8": x is cast beforehand, as for _scaled_mm.

    kernels: those of ops.cuda.preferred.
    """
    spec = None if activation in (None, "float8") else mf.QuantSpec.parse(activation)

    def make(x: torch.Tensor, w: torch.Tensor, copies: int):
        q = on_device(mf.quantize(w.float().cpu(), weight), x.device)
        if activation == "float8":
            x = x.to(torch.float8_e4m3fn)
        prepared = mf.ops.prepare(q, spec)
        layouts = [prepared[0].clone() for _ in range(copies)]
        n, linear = w.shape[0], torch.ops.minifloat.linear.default

        def call(layout):
            with cuda.preferred(kernels):
                return linear(x, layout, prepared[1], None, n)

        return [lambda layout=layout: call(layout) for layout in layouts]

    return make


def cublas(dtype: torch.dtype):
    def make(x, w, copies):
        inputs = x.to(dtype)
        weights = [w.to(dtype).clone() for _ in range(copies)]
        return [lambda v=v: torch.nn.functional.linear(inputs, v) for v in weights]

    return make


def int4pack(x, w, copies):
    """torch._weight_int4pack_mm: 4-bit integers, groups of 128, bfloat16."""
    n, k = w.shape
    codes = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device=x.device)
    packed = torch._convert_weight_to_int4pack(codes, 8)
    scales = torch.rand(k // 128, n, 2, dtype=torch.bfloat16, device=x.device)
    inputs, weights = x.bfloat16(), [packed.clone() for _ in range(copies)]
    return [lambda v=v: torch._weight_int4pack_mm(inputs, v, 128, scales) for v in weights]


def int_mm(x, w, copies):
    """torch._int_mm: 8-bit integers both sides, without quantizing x and without scales."""
    if x.shape[0] <= 16:
        raise NotHere("torch._int_mm needs more than 16 rows")
    inputs = torch.randint(-127, 128, x.shape, dtype=torch.int8, device=x.device)
    weights = [torch.randint(-127, 128, w.shape, dtype=torch.int8, device=x.device) for _ in range(copies)]
    return [lambda v=v: torch._int_mm(inputs, v.t()) for v in weights]


def scaled_mm(x, w, copies):
    """torch._scaled_mm: e4m3fn both sides, one scale each, without quantizing x."""
    if torch.cuda.get_device_capability() < (8, 9):
        raise NotHere("torch._scaled_mm needs compute capability 8.9")
    if x.shape[0] % 16:
        raise NotHere("torch._scaled_mm is measured with multiples of 16 rows")
    inputs = x.to(torch.float8_e4m3fn)
    weights = [w.to(torch.float8_e4m3fn).clone() for _ in range(copies)]
    one = torch.ones((), device=x.device)
    return [lambda v=v: torch._scaled_mm(inputs, v.t(), one, one, out_dtype=torch.bfloat16) for v in weights]


# Peers that are packages of their own are in packages.py.
PEERS = {
    "cuBLAS fp16": (cublas(torch.float16), 16),
    "cuBLAS bf16": (cublas(torch.bfloat16), 16),
    "torch _weight_int4pack_mm": (int4pack, 4),
    "torch _int_mm": (int_mm, 8),
    "torch _scaled_mm": (scaled_mm, 8),
}
