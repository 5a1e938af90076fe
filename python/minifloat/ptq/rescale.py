"""Factors on channels, moved from what makes them to what takes them, without a change of the model's outputs."""

from __future__ import annotations

import torch
from torch import nn

from .graph import is_rms_norm


class ChannelReLU6(nn.Module):
    """ReLU6 of which each channel has a cap of its own: min(max(x, 0), cap), for x (B, C, ...)."""

    def __init__(self, cap: torch.Tensor):
        super().__init__()
        self.register_buffer("cap", cap)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(x.clamp(min=0), self.cap.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2)))


def can_scale_outputs(module: nn.Module | None, channels: int) -> bool:
    """Whether scale_outputs works on a module with this many output channels."""
    if isinstance(module, nn.LayerNorm) or is_rms_norm(module):
        return module.weight is not None and tuple(module.weight.shape) == (channels,)
    return isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[0] == channels


@torch.no_grad()
def scale_outputs(module: nn.Module, factor: torch.Tensor) -> None:
    """Multiply each output channel of a linear layer, convolution or norm by factor (channels,).

    Norms that multiply with 1 + weight (Gemma's) are told by a call.
    """
    factor = factor.double()
    weight = module.weight.double()
    if is_rms_norm(module) and _adds_one(module):
        module.weight.copy_((weight + 1) * factor - 1)
    else:
        module.weight.copy_(weight * factor.reshape(-1, *[1] * (weight.dim() - 1)))
    if getattr(module, "bias", None) is not None:
        module.bias.copy_(module.bias.double() * factor)


@torch.no_grad()
def scale_inputs(layer: nn.Module, factor: torch.Tensor) -> None:
    """Multiply the weights of each input channel of a linear layer or convolution by factor (channels,)."""
    groups = getattr(layer, "groups", 1)
    w = layer.weight.double()
    split = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    layer.weight.copy_((split * factor.double().reshape(groups, 1, w.shape[1], 1)).reshape(w.shape))


def input_channels(layer: nn.Module) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features


def _adds_one(norm: nn.Module) -> bool:
    x = torch.ones(1, norm.weight.shape[0], dtype=norm.weight.dtype)
    return not torch.allclose(norm(x).double(), norm.weight.double(), rtol=1e-2, atol=1e-2)
