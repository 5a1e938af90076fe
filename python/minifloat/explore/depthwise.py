"""Grouped convolutions with one activation scale, by torch's float convolution: the bits of QConv2d, many times sooner.

QConv2d rounds patches, here each pixel is rounded once; with one scale for all of them that is the same. The sums of
the exact contract are of whole numbers times a power of two: below 2**24, float32 holds them in any order.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..formats import Format
from ..nn.conv import pad
from ..nn.qconv import QConv2d
from ..plan import Plan

SMALLEST, LARGEST = 2.0**-126, torch.finfo(torch.float32).max
EXPONENT = 0x7F800000  # of a float32's bits


class FloatCarried(nn.Module):
    """In the place of a QConv2d that `applies` accepts; quantized anew from it, nothing is stored."""

    def __init__(self, layer: QConv2d):
        super().__init__()
        self.layer = layer
        q = layer.qtensor
        self.values = q.spec.format.decode(q.codes).reshape(layer.weight.shape)  # (N, C / groups, H, W)
        self.scales = q.scales.expand(q.shape[0], 1).reshape(-1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        f = layer.activation.format
        ends = layer.input_range
        if ends is not None:
            x = x.clamp(ends[0], ends[1])
        top = x.abs().amax() if ends is None else ends.abs().amax()
        if not top.isfinite():
            raise ValueError(f"{type(layer).__name__}: x holds NaN or infinity")
        scale = (top / f.scale_max).clamp(SMALLEST, LARGEST)
        a = pad(rounded(x / scale, f), layer)
        y = F.conv2d(a, self.values, None, layer.stride, 0, layer.dilation, layer.groups)
        y = y * self.scales * scale
        return y if layer.bias is None else y + layer.bias[:, None, None]


def applies(layer: QConv2d) -> bool:
    """Whether the two give the same bits: one float32 scale, an int or float format, sums that float32 holds."""
    w, a = layer.spec, layer.activation
    if layer.groups == 1 or a is None or a.granularity != "tensor" or a.scale_format != "float32" or a.zero_point:
        return False
    if (
        w.group_size
        or w.zero_point
        or w.scale_format != "float32"
        or not {w.format.kind, a.format.kind} <= {"int", "float"}
    ):
        return False
    # A pixel that no patch holds would count for the scale here only.
    covered = all(s <= k for s, k in zip(layer.stride, layer.kernel_size, strict=True)) and layer.dilation == (1, 1)
    signed = a.format.signed and a.format.nan_code is None
    return covered and signed and Plan(w, a).accumulator_bits(layer.prepared.shape[1]) <= 25


def rounded(t: torch.Tensor, f: Format) -> torch.Tensor:
    """t, float32, to the nearest value of a signed int or float format; ties to the even code, saturating."""
    if f.kind == "int":
        return t.round().clamp(f.min, f.max)
    lowest, m = 2.0 ** (1 - f.bias), 2.0**-f.mantissa_bits
    power = (t.view(torch.int32) & EXPONENT).view(torch.float32).clamp(min=lowest)  # of two, at most |t|
    steps = t / (power * m)
    whole = steps.round()
    if f.mantissa_bits == 0:  # codes are exponents: from the middle of two, to the even one
        code = power.log2() - (1 - f.bias) + 1
        whole = torch.where((steps.abs() == 1.5) & (code % 2 == 0), steps.sign(), whole)
    return (whole * (power * m)).clamp(f.min, f.max)


def sooner(model: nn.Module) -> nn.Module:
    """Replace, in place, every layer of the model that `applies` accepts."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, QConv2d) and applies(child):
                setattr(module, name, FloatCarried(child))
    return model
