"""What a quantized model costs: bytes, bits, LUTs of hardware, time on this CPU."""

from __future__ import annotations

import time

import torch
from torch import nn

from ..nn.qmodule import QModule
from ..ptq.data import call
from .luts import luts_per_mac

REPEATS = 3


def cost(model: nn.Module, batch) -> dict:
    """The costs of a model.

    Args:
        batch: what the layers are timed on.
    Returns:
        bits_per_weight: of the quantized layers, scales included; 32 without any.
        model_bytes: packed weights with their scales, and everything else in float32.
        macs: multiply-accumulates of the quantized layers on the batch.
        luts_per_mac: mean over these; None if one of them multiplies a pair of formats that was not measured.
        layer_time_ms: CPU time of all linear and convolution layers on the batch, the least of REPEATS passes.
        threads: torch's, for the time.
    """
    quantized = [module for module in model.modules() if isinstance(module, QModule)]
    macs = _macs(model, quantized, batch)
    return {
        "bits_per_weight": _bits_per_weight(quantized),
        "model_bytes": _bytes(model, quantized),
        "macs": sum(macs),
        "luts_per_mac": _mean_luts(quantized, macs),
        "layer_time_ms": _layer_time_ms(model, batch),
        "threads": torch.get_num_threads(),
    }


def _bits_per_weight(quantized: list[QModule]) -> float:
    sizes = [layer.matrix_shape[0] * layer.matrix_shape[1] for layer in quantized]
    if not sizes:
        return 32.0
    return sum(layer.bits_per_value * size for layer, size in zip(quantized, sizes, strict=True)) / sum(sizes)


def _bytes(model: nn.Module, quantized: list[QModule]) -> int:
    packed = sum(q.nbytes for q in {id(layer.prepared): layer.qtensor for layer in quantized}.values())
    shifts = [module.input_shift for module in model.modules() if isinstance(module, QModule)]
    floats = [*model.parameters(), *(shift for shift in shifts if shift is not None)]
    return packed + sum(4 * tensor.numel() for tensor in floats)


@torch.inference_mode()
def _macs(model: nn.Module, quantized: list[QModule], batch) -> list[int]:
    """Multiply-accumulates of each quantized layer: K for each output."""
    counts = dict.fromkeys(quantized, 0)

    def count(layer, args, y):
        counts[layer] += y.numel() * layer.matrix_shape[1]

    handles = [layer.register_forward_hook(count) for layer in quantized]
    try:
        call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return list(counts.values())


def _mean_luts(quantized: list[QModule], macs: list[int]) -> float | None:
    luts = [
        luts_per_mac(str(layer.spec.format), str(layer.activation.format) if layer.activation else None)
        for layer in quantized
    ]
    if None in luts or not sum(macs):
        return None
    total = sum(one * layer.planes * count for one, layer, count in zip(luts, quantized, macs, strict=True))
    return total / sum(macs)


@torch.inference_mode()
def _layer_time_ms(model: nn.Module, batch) -> float:
    """Time within the linear and convolution layers, quantized or not."""
    layers = [module for module in model.modules() if isinstance(module, (QModule, nn.Linear, nn.Conv2d))]
    starts: dict[nn.Module, float] = {}
    total_s = 0.0

    def before(layer, args):
        starts[layer] = time.perf_counter()

    def after(layer, args, y):
        nonlocal total_s
        total_s += time.perf_counter() - starts.pop(layer)

    handles = [
        handle for m in layers for handle in (m.register_forward_pre_hook(before), m.register_forward_hook(after))
    ]
    times = []
    try:
        for _ in range(REPEATS):
            total_s = 0.0
            call(model, batch)
            times.append(total_s)
    finally:
        for handle in handles:
            handle.remove()
    return 1e3 * min(times)
