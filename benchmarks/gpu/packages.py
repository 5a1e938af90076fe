"""Peers that are installed as packages of their own. None is needed: what is not installed is said, not measured.

The calls were written from the packages' source (humming-kernels 0.1.20, gemlite 0.6.0.post2, torchao 0.18.0,
bitsandbytes 0.50.2) on a machine without a GPU, and have never run. Each contender makes `copies` callables, as in
contenders.py.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

GROUP = 128
TILED = "tile_packed_to_4d"  # torchao's name for the layout of torch._weight_int4pack_mm


def humming(weight: dict, activation: str | None = None):
    """Humming's layer; it compiles its kernels at the first call. weight: its own configuration of the weight."""

    def make(x, w, copies):
        from humming.layer import HummingLayer

        n, k = w.shape
        inputs = None if activation is None else {"dtype": activation}
        layers = []
        for _ in range(copies):
            # The layer keeps the dictionaries and adds to them.
            layer = HummingLayer(n, k, dict(weight), inputs and dict(inputs), torch_dtype=x.dtype).to(x.device)
            layer.load_from_unquantized(w)
            layer.transform()
            layers.append(layer)
        return [lambda layer=layer: layer(x) for layer in layers]

    return make


def _four_bits(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes 0..15 (N, K) as bytes, scales and zero points (N, K / GROUP): weight = (code - zero point) * scale."""
    groups = w.float().reshape(w.shape[0], -1, GROUP)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    scales = ((high - low) / 15).clamp(min=1e-6)
    zeros = (-low / scales).round()
    codes = (groups / scales + zeros).round().clamp(0, 15).to(torch.uint8).reshape(w.shape)
    return codes, scales.squeeze(-1).to(w.dtype), zeros.squeeze(-1).to(w.dtype)


def gemlite(helper: str, four_bits: bool):
    """One of gemlite.helper's classes: from codes of four bits, or from the weight, which it rounds itself."""

    def make(x, w, copies):
        from gemlite import helper as helpers

        arguments = _four_bits(w) if four_bits else (w,)
        maker = getattr(helpers, helper)(device=x.device, dtype=x.dtype)
        layers = [maker.from_weights(*(t.clone() for t in arguments)) for _ in range(copies)]
        return [lambda layer=layer: layer(x) for layer in layers]

    return make


def torchao(config: str, dtype: torch.dtype, compiled: bool = False, **options):
    """torchao.quantize_ of a linear layer; where torchao has no kernel for it, to be compiled (seconds for a shape)."""

    def make(x, w, copies):
        from torchao import quantization

        layers = []
        for _ in range(copies):
            layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False, device="meta", dtype=dtype)
            layer.weight = torch.nn.Parameter(w.to(dtype, copy=True), requires_grad=False)
            quantization.quantize_(layer, getattr(quantization, config)(set_inductor_config=False, **options))
            layers.append(layer)
        inputs, linear = x.to(dtype), torch.nn.functional.linear
        if compiled:
            torch.compiler.reset()  # else the ninth shape would no longer be compiled
            linear = torch.compile(lambda v, weight: torch.nn.functional.linear(v, weight), dynamic=False)
        return [lambda layer=layer: linear(inputs, layer.weight) for layer in layers]

    return make


def bitsandbytes_nf4(x, w, copies):
    """bitsandbytes nf4, groups of 64."""
    from bitsandbytes import functional, matmul_4bit

    packed, state = functional.quantize_4bit(w.half(), blocksize=64, quant_type="nf4")
    weights = [packed.clone() for _ in range(copies)]
    return [lambda v=v: matmul_4bit(x, v.t(), state) for v in weights]


def bitsandbytes_int8(x, w, copies):
    """bitsandbytes LLM.int8 without outliers: x quantized by row, int8 product, scales."""
    from bitsandbytes import functional

    codes, scales, _ = functional.int8_vectorwise_quant(w.half())
    inputs, weights = x.half(), [codes.clone() for _ in range(copies)]

    def call(v):
        rows, row_scales, _ = functional.int8_vectorwise_quant(inputs)
        return functional.int8_mm_dequant(functional.int8_linear_matmul(rows, v), row_scales, scales)

    return [lambda v=v: call(v) for v in weights]


# {package as installed: (module, {contender: (make, bits of a weight)})}
PACKAGES = {
    "humming-kernels": (
        "humming",
        {
            "humming int4-g128": (humming({"dtype": "int4", "group_size": GROUP}), 4),
            "humming e2m1-g128": (humming({"dtype": "float4e2m1", "group_size": GROUP}), 4),
            "humming int3-g128": (humming({"dtype": "int3", "group_size": GROUP}), 3),
            "humming int2-g128": (humming({"dtype": "int2", "group_size": GROUP}), 2),
            "humming e2m3-row": (humming({"dtype": "float6e2m3"}), 6),
            "humming int8-row": (humming({"dtype": "int8"}), 8),
            "humming int4-g128 x int8": (humming({"dtype": "int4", "group_size": GROUP}, "int8"), 4),
            "humming int8-row x int8": (humming({"dtype": "int8"}, "int8"), 8),
            "humming int4-g128 x e4m3": (humming({"dtype": "int4", "group_size": GROUP}, "float8e4m3"), 4),
            "humming e2m1-g128 x e4m3": (humming({"dtype": "float4e2m1", "group_size": GROUP}, "float8e4m3"), 4),
            "humming e2m3-row x e4m3": (humming({"dtype": "float6e2m3"}, "float8e4m3"), 6),
        },
    ),
    "gemlite": (
        "gemlite",
        {
            "gemlite uint4-g128": (gemlite("A16W4_HQQ_INT", True), 4),
            "gemlite int8-row": (gemlite("A16W8_INT8", False), 8),
            "gemlite uint4-g128 x e4m3fn": (gemlite("A8W4_HQQ_INT_dynamic", True), 4),
            "gemlite int8-row x int8": (gemlite("A8W8_INT8_dynamic", False), 8),
        },
    ),
    "torchao": (
        "torchao",
        {
            "torchao uint4-g128": (
                torchao("Int4WeightOnlyConfig", torch.bfloat16, group_size=GROUP, int4_packing_format=TILED),
                4,
            ),
        },
    ),
    "bitsandbytes": (
        "bitsandbytes",
        {"bitsandbytes nf4": (bitsandbytes_nf4, 4), "bitsandbytes int8-row x int8": (bitsandbytes_int8, 8)},
    ),
}

# With --full only: torch.compile takes seconds for every shape and batch.
PACKAGES_FULL = {
    "torchao": {
        "torchao int8-row": (torchao("Int8WeightOnlyConfig", torch.bfloat16, compiled=True), 8),
        "torchao int8-row x int8": (torchao("Int8DynamicActivationInt8WeightConfig", torch.bfloat16, compiled=True), 8),
    }
}


def contenders_of(package: str, full: bool) -> dict:
    return PACKAGES[package][1] | (PACKAGES_FULL.get(package, {}) if full else {})


def not_installed(package: str) -> str | None:
    """Why this package cannot be measured, or None. Nothing is imported."""
    module = PACKAGES[package][0]
    return None if find_spec(module) else f"{package} is not installed (no module {module!r})"
