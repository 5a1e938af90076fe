"""Inputs shifted, channel by channel, to where the format they are rounded to serves them best.

Source: Wei et al., "Outlier Suppression+: Accurate quantization of large language models by equivalent and optimal
shifting and scaling", 2023 (arXiv 2304.09145), which shifts each channel by the centre of its range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..formats import QuantSpec
from ..nn.shift import takes_shift
from ..qtensor import quantize
from .collect import Samples
from .ffp8 import unsigned_spec
from .layer import Layer
from .recipe import Step, register
from .run import Run

SAMPLED_ROWS = 2048
PARTS = (1.0, 0.8, 0.6, 0.4)  # of the range that inputs with one scale for all of them may be clipped to


@register
@dataclass(frozen=True)
class ShiftInputs(Step):
    """Subtract a value z from each input channel before rounding; W z goes into the bias, so float outputs stay.

    A layer's z is, channel by channel, nothing, the centre of the range, the mean, the median or, with the format's
    unsigned form, the least value or the quantile below which few inputs lie: whichever leaves the least output error
    once inputs are rounded to nearest, on a sample of 2048 rows. The centre is what the source uses and suits integers.
    Floats are dense around 0 and want it where most inputs are. What GELU puts out never goes below -0.17, so signed
    formats leave nearly half of their codes there unused. Convolutions that pad, or whose kernel is not 1 x 1, stay as
    they are. Comes before input_ranges and what quantizes, and after what rescales channels.

    Attributes:
        unsigned: whether formats may become unsigned, with a mantissa bit in place of the sign.
        quantile: of each channel's inputs, the part that an unsigned format may cut off.
    """

    name = "shift_inputs"

    unsigned: bool = True
    quantile: float = 0.01

    def __post_init__(self):
        if not 0 <= self.quantile < 0.5:
            raise ValueError(f"shift_inputs: quantile={self.quantile} must be at least 0 and below 0.5")

    def apply(self, run: Run) -> None:
        run.float_only(self)
        for layer in run.layers:
            if layer.input_range is not None:
                raise ValueError(f"recipe: shift_inputs comes before what fixes the input range of {layer.name!r}")
            if layer.input_shift is not None:
                raise ValueError(f"recipe: the input of {layer.name!r} is shifted already: give shift_inputs once")
        layers = [layer for layer in run.layers if layer.activation is not None and takes_shift(layer.float)]
        if not layers:
            raise ValueError("shift_inputs: no layer has inputs that are rounded and can be shifted")
        todo = [layer for layer in layers if not run.restored(layer)]
        samples = {layer: Samples(SAMPLED_ROWS, run.generator) for layer in todo}
        if todo:
            run.collect(samples, "sampling inputs")
        for layer in run.track(todo, "shifting inputs"):
            shift, spec = self.choose(layer, samples[layer].value)
            layer.activation = spec
            if shift is not None:
                shift_input(layer, shift)
            run.keep(layer)

    def choose(self, layer: Layer, rows: torch.Tensor) -> tuple[torch.Tensor | None, QuantSpec]:
        """The shift, (row_groups, 1, K) or None, and the activation spec with the least error.

        Args:
            rows: (row_groups, M, K), what the layer's matrix multiplies.
        """
        candidates = [(None, layer.activation)]
        for shift, unsigned in self._shifts(rows):
            spec = unsigned_spec(layer.activation) if unsigned else layer.activation
            if unsigned == (spec != layer.activation):
                candidates.append((shift, spec))
        if layer.outliers is not None:  # these columns are not rounded
            kept = layer.outliers[0]
            candidates = [(z if z is None else z.index_fill(-1, kept, 0), spec) for z, spec in candidates]
        errors = [rounding_error(layer, rows, shift, spec) for shift, spec in candidates]
        return candidates[errors.index(min(errors))]

    def _shifts(self, rows: torch.Tensor) -> list[tuple[torch.Tensor | None, bool]]:
        """Candidates for the shift, and whether each goes with an unsigned format."""
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        signed = [(low + high) / 2, rows.mean(1, keepdim=True), rows.median(1, keepdim=True).values]
        unsigned = []
        if self.unsigned:
            rank = max(1, round(self.quantile * rows.shape[1]))
            unsigned = [low, rows.kthvalue(rank, dim=1, keepdim=True).values]
            if (low >= 0).all():
                unsigned.append(None)
        return [(shift, False) for shift in signed] + [(shift, True) for shift in unsigned]


@torch.no_grad()
def shift_input(layer: Layer, shift: torch.Tensor) -> None:
    """Let the layer round x - shift, and its bias make up for it. shift: (row_groups, 1, K)."""
    groups, _, k = shift.shape
    w = layer.matrix.double().reshape(groups, -1, k)
    bias = getattr(layer.float, "bias", None) if layer.bias is None else layer.bias
    moved = (w @ shift.double().mT).flatten() + (0 if bias is None else bias.double())
    layer.bias = moved.to(layer.float.weight.dtype)
    layer.input_shift = shift.flatten()


def rounding_error(layer: Layer, rows: torch.Tensor, shift: torch.Tensor | None, spec: QuantSpec) -> float:
    """Sum of squared output errors of float weights once the shifted rows are rounded; with the best clipping tried."""
    x = rows if shift is None else rows - shift
    w = layer.matrix.reshape(rows.shape[0], -1, rows.shape[2])
    clips = spec.granularity == "tensor"
    errors = []
    for part in PARTS if clips else PARTS[:1]:
        clipped = x.clamp(part * x.min(), part * x.max()) if clips else x
        rounded = quantize(clipped.flatten(0, 1), replace(spec, scale_rule="absmax")).dequantize().reshape(x.shape)
        errors.append(((rounded - x) @ w.mT).double().square().sum().item())
    return min(errors)
