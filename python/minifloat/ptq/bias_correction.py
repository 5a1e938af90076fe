"""Bias correction: quantized layers get the mean outputs of the float ones, and if asked for their variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..qtensor import QTensor, store_scales
from .collect import Moments
from .layer import Layer
from .recipe import Step, register
from .run import Run

LIMIT = 2.0  # largest factor on a scale: a channel that is all but constant has no variance to speak of


@register
@dataclass(frozen=True)
class CorrectBias(Step):
    """Add to each quantized layer's bias what its mean outputs lack, channel by channel, on the calibration data.

    In the order of the calls, so that each layer also makes up for what those before it have shifted. Layers that are
    still float are rounded to nearest first.

    Attributes:
        variance: also multiply the scales of each row of weights by the ratio of the float outputs' standard deviation
            to the quantized ones', from 1/2 to 2. For weights with a float32 or bfloat16 scale a row or group.
    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", appendix D
        (empirical bias correction). variance: Hubara et al., "Improving Post Training Neural Quantization: Layer-wise
        Calibration and Integer Programming", 2020 (correction of statistics), with the weights' scales in the place of
        batch norms, so that nothing is added to the model.
    """

    name = "bias_correction"

    variance: bool = False

    def apply(self, run: Run) -> None:
        if self.variance:
            for layer in run.layers:
                _check(layer)
        run.quantize_rest()
        wanted = {layer: Moments("output") for layer in run.layers}
        with run.as_float():
            run.collect(wanted, "float outputs")
        for block in run.sequence():
            for layer in block.layers:
                if run.restored(layer):
                    continue
                found = Moments("output")
                run.collect({layer: found})
                run.set_module(layer, self._corrected(layer, wanted[layer], found))

    def _corrected(self, layer: Layer, wanted: Moments, found: Moments) -> nn.Module:
        module = layer.quantized
        old = torch.zeros(len(found.value)) if module.bias is None else module.bias.detach()
        factor = torch.ones_like(found.value)
        if self.variance and layer.outliers is None:  # what outliers add does not pass through the scales
            ratio = wanted.deviation / found.deviation.clamp_min(torch.finfo(torch.float64).tiny)
            factor = ratio.clamp(1 / LIMIT, LIMIT)
            module = layer.make(scaled_rows(module.qtensor, factor))
        new = wanted.value - factor * (found.value - old.double())
        module.bias = nn.Parameter(new.to(old.dtype))  # not in place: the float layer may hold the old one
        return module


def scaled_rows(q: QTensor, factor: torch.Tensor) -> QTensor:
    """q with the scales of each row n multiplied by factor[n], (N,)."""
    scales = (q.scales.double() * factor.double()[:, None]).float().contiguous()
    return QTensor(q.spec, q.shape, q.packed, store_scales(scales, q.spec.scale_format), q.zero_points, q.tensor_scale)


def _check(layer: Layer) -> None:
    if layer.weight.granularity == "tensor" or layer.weight.scale_format not in ("float32", "bfloat16"):
        raise ValueError(
            f"bias_correction: variance=True needs weights with a float scale for each row, such as int4-row, but "
            f"{layer.name!r} has {layer.weight}"
        )
