"""Batch norms folded into the convolutions and linear layers before them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .graph import Graph
from .recipe import Step, register
from .run import Run

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@register
@dataclass(frozen=True)
class FoldBatchNorm(Step):
    """Fold every batch norm whose input comes straight from a convolution or linear layer, and from nothing else.

    In eval mode y = (x - mean) / sqrt(var + eps) * weight + bias is a scale and a shift of each channel. The norm
    becomes nn.Identity. Float outputs stay as they are, but for rounding.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", section 3.2, equation 14.
    """

    name = "fold_batch_norm"
    changes = "structure"

    def apply(self, run: Run) -> None:
        run.float_only(self)
        graph = Graph(run)
        for name, norm in list(run.model.named_modules()):
            node = graph.of(norm) if isinstance(norm, NORMS) and norm.running_mean is not None else None
            maker = node.inputs[0] if node is not None else None
            if maker is None or len(maker.users) != 1 or graph.of(maker.module) is None:
                continue
            if isinstance(maker.module, nn.Conv2d | nn.Linear) and maker.module.weight.shape[0] == norm.num_features:
                fold(maker.module, norm)
                parent, _, attribute = name.rpartition(".")
                setattr(run.model.get_submodule(parent), attribute, nn.Identity())


@torch.no_grad()
def fold(layer: nn.Module, norm: nn.Module) -> None:
    """Give the layer the weight and bias of the layer followed by the batch norm in eval mode."""
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight.double()
    bias = 0.0 if layer.bias is None else layer.bias.double()
    shifted = (bias - norm.running_mean.double()) * factor + (0.0 if norm.bias is None else norm.bias.double())
    weight = layer.weight.double() * factor.reshape(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight.copy_(weight)
    layer.bias = nn.Parameter(shifted.to(layer.weight.dtype))
