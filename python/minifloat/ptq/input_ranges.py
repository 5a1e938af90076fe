"""Fixed input ranges: the scales of activations, measured beforehand instead of at each call."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import QuantSpec
from ..nn.rounding import scaled_values, scales_of
from ..nn.static import can_be_static
from .collect import Collector
from .layer import Layer
from .recipe import Step, register
from .run import Run

BINS = 2048
RULES = ("absmax", "percentile", "mse")


class Histogram(Collector):
    """Counts of a layer's inputs in equal bins between two ends, and of its zeros in the bin that holds them.

    Attributes:
        centres, counts: float64 (BINS,).
    """

    def __init__(self, low: float, high: float):
        width = (high - low) / BINS
        self.low, self.high = low, high
        self.centres = torch.arange(BINS, dtype=torch.float64).add(0.5).mul(width).add(low)
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        self.counts += torch.histc(layer.shifted(x), BINS, self.low, self.high).double()


class Ends(Collector):
    """The smallest and largest input of a layer, 0 included, in `low` and `high`."""

    def __init__(self):
        self.low = self.high = 0.0

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        low, high = layer.shifted(x).aminmax()
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())


@register
@dataclass(frozen=True)
class InputRanges(Step):
    """Give each layer whose activation spec has one scale for the whole tensor a fixed range, that of its float inputs.

    Inputs beyond it are clipped. Layers with a scale for each row keep scaling what they get.

    Attributes:
        rule: "absmax": all of the range. "percentile": what this percentage of the inputs lies within, on either side.
            "mse": of 100 parts of the range, the one with the least squared rounding error.
        percentile: above 50, at most 100.
    Source: Nagel et al., "A White Paper on Neural Network Quantization", section 3.1 (range setting).
    """

    name = "input_ranges"

    rule: str = "mse"
    percentile: float = 99.99

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"input_ranges: rule {self.rule!r} must be one of {', '.join(RULES)}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"input_ranges: percentile {self.percentile} must be above 50 and at most 100")

    def apply(self, run: Run) -> None:
        layers = [layer for layer in run.layers if can_be_static(layer.activation)]
        if not layers:
            raise ValueError(
                "input_ranges: no layer has an activation with one scale for all of x, such as int8-tensor"
            )
        ends = {layer: Ends() for layer in layers}
        with run.as_float():
            run.collect(ends, "input ranges")
            histograms = {layer: Histogram(e.low, e.high) for layer, e in ends.items() if e.high > e.low}
            if self.rule != "absmax" and histograms:
                run.collect(histograms, "input histograms")
        for layer in layers:
            low, high = ends[layer].low, ends[layer].high
            if layer in histograms and self.rule != "absmax":
                low, high = self._choose(histograms[layer], layer.activation)
            layer.input_range = (low, high)
            if layer.quantized is not None:
                layer.quantized.set_input_range(low, high)

    def _choose(self, histogram: Histogram, spec: QuantSpec) -> tuple[float, float]:
        low, high = histogram.low, histogram.high
        if self.rule == "percentile":
            share = histogram.counts.cumsum(0) / histogram.counts.sum()
            outside = 1 - self.percentile / 100
            kept = histogram.centres[
                (share >= outside) & (share - histogram.counts / histogram.counts.sum() <= 1 - outside)
            ]
            return min(kept.min().item(), 0.0) if low < 0 else 0.0, max(kept.max().item(), 0.0)
        parts = torch.linspace(1, 0.01, 100).tolist()
        errors = [clipping_error(histogram, spec, low * part, high * part) for part in parts]
        part = parts[errors.index(min(errors))]
        return low * part, high * part


def clipping_error(histogram: Histogram, spec: QuantSpec, low: float, high: float) -> float:
    """Sum of squared errors of the inputs in a histogram, clipped to the range and rounded with its scale."""
    ends = torch.tensor([low, high])
    if spec.scale_format == "e4m3fn":  # the range sets the second-level scale only: what is left to do is to clip
        rounded = histogram.centres.float().clamp(low, high)
        return ((rounded.double() - histogram.centres) ** 2 * histogram.counts).sum().item()
    scale, point = scales_of(ends[:1], ends[1:], spec)
    values = scaled_values(histogram.centres.float().clamp(low, high), spec, scale, point)
    return (((values * scale).double() - histogram.centres) ** 2 * histogram.counts).sum().item()
