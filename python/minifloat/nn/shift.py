"""Inputs that are shifted before they are rounded, so that the grid's dense part, or all of it, lies where they are.

x @ w.T = (x - z) @ w.T + z @ w.T: a layer with a shift z multiplies x - z, rounded, and its bias holds the last term.
So kernels know nothing of it, every format can be used, and unsigned ones too where x has a lower end.
"""

from __future__ import annotations

import torch
from torch import nn

from ..formats import QuantSpec


def takes_shift(layer: nn.Module) -> bool:
    """Whether a shift of the layer's input comes to a change of its bias: not where a convolution pads with zeros."""
    if isinstance(layer, nn.Linear) or not hasattr(layer, "kernel_size"):
        return True
    return tuple(layer.kernel_size) == (1, 1) and not any(layer._reversed_padding_repeated_twice)


def as_shift(shift: torch.Tensor) -> torch.Tensor:
    """float32 copy of a shift.

    Raises:
        ValueError: it is not one row of finite floats.
    """
    if shift.dim() != 1 or not shift.isfinite().all():
        raise ValueError(f"input_shift must be finite floats (channels,), got shape {tuple(shift.shape)}")
    return shift.detach().float().clone()


def shift_problems(shift: torch.Tensor | None, shape: tuple[int, int], activation: QuantSpec | None) -> list[str]:
    """What is wrong with a shift for a weight (N, K), K of it a group of input channels; None is fine."""
    if shift is None:
        return []
    if activation is None:
        return ["input_shift does not go with inputs that stay float"]
    n, k = shape
    groups = len(shift) // max(k, 1) if shift.dim() == 1 else 0
    if not shift.is_floating_point() or groups < 1 or len(shift) != groups * k or n % groups:
        return [f"input_shift is {shift.dtype} {tuple(shift.shape)}, expected floats ({k},)"]
    return [] if shift.isfinite().all() else ["input_shift is not finite"]
