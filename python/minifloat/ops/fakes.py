"""Output shapes of the ops, for torch.compile and torch.export."""

from __future__ import annotations

import numpy as np
import torch

from .records import PLAN


def plan_fields(plan: torch.Tensor) -> np.void:
    """The fields of a plan tensor, by the names of kernels/cpu/plan.h."""
    return np.frombuffer(plan.numpy().tobytes(), dtype=PLAN)[0]


@torch.library.register_fake("minifloat::linear")
def linear(x, weight, plan, bias, out_features):
    # float8 x (on a GPU) gives bfloat16, every other x its own type
    return x.new_empty((*x.shape[:-1], out_features), dtype=torch.bfloat16 if x.dtype.itemsize == 1 else x.dtype)


@torch.library.register_fake("minifloat::linear_backward")
def linear_backward(grad, weight, plan, in_features):
    return grad.new_empty((*grad.shape[:-1], in_features))


@torch.library.register_fake("minifloat::pack")
def _pack(codes, bits):
    return codes.new_empty((codes.shape[0], (codes.shape[1] * bits + 7) // 8))


@torch.library.register_fake("minifloat::unpack")
def _unpack(packed, bits, k):
    return packed.new_empty((packed.shape[0], k))


@torch.library.register_fake("minifloat::dequantize")
def _dequantize(codes, scales, zero_points, tensor_scale, operand):
    return codes.new_empty(codes.shape, dtype=torch.float32)
