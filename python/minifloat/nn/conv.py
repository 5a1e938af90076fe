"""Convolutions as matrix products: the input's patches (im2col)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def pad(x: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    """x (B, C, H, W) with conv's padding around it, whatever its mode; padding="same" too."""
    around = conv._reversed_padding_repeated_twice
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(x, around, mode=mode) if any(around) else x


def patches(x: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    """(groups, M, K) of x (B, C, H, W) or (C, H, W): M = B * output positions, K = C / groups * kernel height * width.

    Columns are ordered as in conv.weight.flatten(1), rows by image and then position.
    """
    if x.dim() == 3:
        x = x[None]
    x = pad(x, conv)
    if tuple(conv.kernel_size) == (1, 1):
        x = x[:, :, :: conv.stride[0], :: conv.stride[1]].flatten(2)
    else:
        x = F.unfold(x, conv.kernel_size, conv.dilation, 0, conv.stride)
    b, columns, positions = x.shape
    x = x.reshape(b, conv.groups, columns // conv.groups, positions)
    return x.permute(1, 0, 3, 2).reshape(conv.groups, b * positions, columns // conv.groups)


def output_size(x: torch.Tensor, conv: nn.Module) -> tuple[int, int]:
    """Height and width of conv(x)."""
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    extents = (x.shape[-2] + top + bottom, x.shape[-1] + left + right)
    return tuple(
        (extent - dilation * (kernel - 1) - 1) // stride + 1
        for extent, dilation, kernel, stride in zip(extents, conv.dilation, conv.kernel_size, conv.stride, strict=True)
    )
