"""Where gemm_scaled can be used: which weights, activations and GPUs. Pure functions; needs no Triton."""

from __future__ import annotations

import numpy as np

from .configs import GEMV_ROWS, Gpu

# By how a code is decoded (bits, mantissa bits, multiplier): what tl.dot_scaled calls the format, and the first
# magnitude that is no number there.
FORMATS = {(4, 1, 2.0**126): ("e2m1", 8), (8, 3, 2.0**120): ("e4m3", 0x7F), (8, 2, 2.0**112): ("e5m2", 0x7C)}


def format_of(operand: np.void, w) -> str:
    """What tl.dot_scaled calls a weight's format, "" where it does not take the codes and scales as they are.

    w: operand.decode_of it.
    """
    codes = (w.bits, w.mantissa_bits, w.multiplier)
    if w.kind != "minifloat" or not w.is_signed or codes not in FORMATS:
        return ""
    name, first_special = FORMATS[codes]
    magnitudes = np.arange(1 << w.bits) & ((1 << (w.bits - 1)) - 1)
    same = np.isfinite(operand["values"][: 1 << w.bits]) == (magnitudes < first_special)
    return name if same.all() and w.scale_kind == "power_of_two" and w.group and w.aligned else ""


def target_of(capability: tuple[int, int]) -> str:
    """The target whose block-scaled instructions an NVIDIA GPU has, "" for none.

    12.x has some too, but Triton 3.6 uses those only for 8 bits on both sides.
    """
    return "sm_100" if capability[0] == 10 else ""


def multiplies(weight_format: str, m: int, gpu: Gpu) -> bool:
    """Whether m rows of 8-bit floats are multiplied as they are."""
    return bool(weight_format and gpu.scaled_target) and m > GEMV_ROWS
