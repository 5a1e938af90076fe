"""Modules of torch that read the weights of their Linear layers instead of calling them, told to call them."""

from __future__ import annotations

from torch import nn

from .qlinear import QLinear


def call_layers(model: nn.Module) -> None:
    """Turn off the fused inference path of every nn.TransformerEncoderLayer that holds a QLinear.

    That path multiplies with linear1.weight and linear2.weight: it would dequantize them at each call, skip the kernels
    and ignore the activation spec. torch asks activation_relu_or_gelu whether the path applies, and use_nested_tensor
    whether an nn.TransformerEncoder may rely on it; neither is used for anything else.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _is_quantized(module):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder) and any(map(_is_quantized, module.layers)):
            module.use_nested_tensor = False


def _is_quantized(layer: nn.Module) -> bool:
    return any(isinstance(getattr(layer, name, None), QLinear) for name in ("linear1", "linear2"))
