"""PyTorch's own CPU kernels: float32, bfloat16, fp16 weights, dynamic int8 by engine, int8 and int4 weights."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F

from .base import Contender, Skipped, copy_count, rotate

GROUP = 128
quantized = torch.ops.quantized


class TorchLinear(Contender):
    """F.linear in one dtype."""

    library = "torch"

    def __init__(self, dtype: torch.dtype, label: str, width: int):
        self._dtype, self.name, self.width = dtype, f"torch {label}", width
        self.arithmetic = "float32" if dtype == torch.float32 else "other"

    def build(self, w, target_bytes, threads):
        first = w.to(self._dtype)
        self.weight_bytes = first.numel() * first.element_size()
        self.weights = [first.clone() for _ in range(copy_count(target_bytes, self.weight_bytes))]

    def work(self, x):
        x = x.to(self._dtype)
        return rotate(lambda w: F.linear(x, w), self.weights)

    def output(self, x):
        return F.linear(x.to(self._dtype), self.weights[0]).float()


class DynamicInt8(Contender):
    """What quantize_dynamic puts into a model: int8 weights per row, uint8 activations per tensor, one engine."""

    library, width = "torch", 8

    def __init__(self, engine: str):
        self._engine, self.name = engine, f"torch int8 {engine}"
        # As torch.ao's dynamic Linear asks for: fbgemm's int16 sums would saturate with 8 bits. qnnpack ignores it.
        self._seven_bits = engine != "qnnpack"

    def build(self, w, target_bytes, threads):
        if self._engine not in torch.backends.quantized.supported_engines:
            raise Skipped(f"this torch was built without {self._engine}")
        previous = torch.backends.quantized.engine
        torch.backends.quantized.engine = self._engine
        try:
            self.weight_bytes = w.numel()
            self.packed = [_prepack(w) for _ in range(copy_count(target_bytes, self.weight_bytes))]
        finally:
            torch.backends.quantized.engine = previous

    def work(self, x):
        return rotate(lambda packed: quantized.linear_dynamic(x, packed, self._seven_bits), self.packed)

    def output(self, x):
        return quantized.linear_dynamic(x, self.packed[0], self._seven_bits)


def _prepack(w: torch.Tensor):
    scales = (w.abs().amax(1) / 127).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated, the kernels behind them are what we time
        wq = torch.quantize_per_channel(w, scales, torch.zeros(len(w), dtype=torch.long), 0, torch.qint8)
        return quantized.linear_prepack(wq, None)


class Fp16Weights(Contender):
    """fbgemm with fp16 weights and float32 arithmetic."""

    library, name, width, arithmetic = "torch", "torch fp16 weights fbgemm", 16, "float32"

    def build(self, w, target_bytes, threads):
        self.weight_bytes = 2 * w.numel()
        previous = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            count = copy_count(target_bytes, self.weight_bytes)
            self.packed = [quantized.linear_prepack_fp16(w, None) for _ in range(count)]
        finally:
            torch.backends.quantized.engine = previous

    def work(self, x):
        return rotate(lambda packed: quantized.linear_dynamic_fp16(x, packed), self.packed)

    def output(self, x):
        return quantized.linear_dynamic_fp16(x, self.packed[0])


class Int4Pack(Contender):
    """aten's 4-bit weights, g128, bfloat16 activations."""

    library, name, width, arithmetic = "torch", f"torch int4pack g{GROUP}", 4, "other"

    def build(self, w, target_bytes, threads):
        n, k = w.shape
        if k % GROUP or n % 64:
            raise Skipped(f"needs K % {GROUP} == 0 and N % 64 == 0")
        groups = w.view(n, k // GROUP, GROUP)
        scales = groups.abs().amax(2) / 7
        codes = ((groups / scales[..., None]).round().clamp(-8, 7) + 8).to(torch.int32).view(n, k)
        # (K / GROUP, N, 2): scale and offset; value = (code - 8) * scale + offset
        pairs = torch.stack([scales.t(), torch.zeros(k // GROUP, n)], 2).bfloat16().contiguous()
        first = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        self.weight_bytes = first.numel() * first.element_size() + pairs.numel() * 2
        count = copy_count(target_bytes, self.weight_bytes)
        self.copies = [(first.clone(), pairs.clone()) for _ in range(count)]

    def work(self, x):
        x = x.bfloat16()
        mm = torch.ops.aten._weight_int4pack_mm_for_cpu
        return rotate(lambda copy: mm(x, copy[0], GROUP, copy[1]), self.copies)

    def output(self, x):
        first, pairs = self.copies[0]
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), first, GROUP, pairs).float()


class Int8Pack(Contender):
    """aten's int8 weights per row, bfloat16 activations."""

    library, name, width, arithmetic = "torch", "torch int8pack row", 8, "other"

    def build(self, w, target_bytes, threads):
        scales = w.abs().amax(1) / 127
        first = (w / scales[:, None]).round().to(torch.int8)
        self.weight_bytes = first.numel() + 2 * len(scales)
        self.scales = scales.bfloat16()
        self.copies = [first.clone() for _ in range(copy_count(target_bytes, self.weight_bytes))]

    def work(self, x):
        x = x.bfloat16()
        return rotate(lambda w: torch.ops.aten._weight_int8pack_mm(x, w, self.scales), self.copies)

    def output(self, x):
        return torch.ops.aten._weight_int8pack_mm(x.bfloat16(), self.copies[0], self.scales).float()


def contenders() -> list[Contender]:
    return [
        TorchLinear(torch.float32, "float32", 32),
        TorchLinear(torch.bfloat16, "bfloat16", 16),
        Fp16Weights(),
        *(DynamicInt8(engine) for engine in ("fbgemm", "onednn", "qnnpack")),
        Int8Pack(),
        Int4Pack(),
    ]
