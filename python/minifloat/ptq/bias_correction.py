"""Bias correction: quantized layers get the mean outputs of the float ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .collect import Mean
from .recipe import Step, register
from .run import Run


@register
@dataclass(frozen=True)
class CorrectBias(Step):
    """Add to each quantized layer's bias what its mean outputs lack, channel by channel, on the calibration data.

    In the order of the calls, so that each layer also makes up for what those before it have shifted. Layers that are
    still float are rounded to nearest first.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", appendix D
        (empirical bias correction).
    """

    name = "bias_correction"

    def apply(self, run: Run) -> None:
        run.quantize_rest()
        wanted = {layer: Mean("output") for layer in run.layers}
        with run.as_float():
            run.collect(wanted, "float outputs")
        for block in run.sequence():
            for layer in block.layers:
                if run.restored(layer):
                    continue
                found = Mean("output")
                run.collect({layer: found})
                module = layer.quantized
                old = torch.zeros(len(found.value)) if module.bias is None else module.bias
                new = old.detach() + (wanted[layer].value - found.value)
                module.bias = nn.Parameter(new.to(old.dtype))  # not in place: the float layer may hold the old one
                run.set_module(layer, module)
