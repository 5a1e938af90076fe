"""A Layer from a float layer and sample activations."""

from __future__ import annotations

import numpy as np

from .. import emulator
from ..formats import Format, QuantSpec
from .layer import Layer
from .requantize import Requantize
from .sample import Sample


def layer_of(
    sample: Sample, weight: str, activation: str, lanes: int, depth: int, output: str | None = None, name: str = "layer"
) -> Layer:
    """Quantize the sample's weight. With an output format the hardware takes fixed scales, set from the sample:

    activations and outputs each get the scale that maps their largest magnitude in the sample to the format's largest,
    the bias becomes an integer of accumulator units, and both scales go into the multipliers. Without one the hardware
    gives raw sums, and scales and bias stay with the host.
    """
    q = emulator.quantize(sample.weight, QuantSpec.parse(weight))
    if output is None:
        return Layer.from_quantized(q, activation, lanes, name, depth=depth)
    a_format, y_format = Format.parse(activation), Format.parse(output)
    a = emulator.quantize(sample.x, QuantSpec(a_format, "tensor"))
    y = emulator.linear(sample.x, q, sample.bias)
    y_scale = float(np.abs(y).max()) / float(y_format.scale_max)
    layer = Layer.from_quantized(q, a_format, lanes, name, depth=depth)
    # One accumulator unit of each row, in real terms.
    real = (
        np.broadcast_to(q.scales.astype(np.float64).ravel(), layer.n)
        * float(a.scales.item())
        * 2.0**layer.pair.plan.unit
    )
    bias = None if sample.bias is None else np.rint(sample.bias.astype(np.float64) / real).astype(np.int64)
    requantize = Requantize.from_scales(y_format, real / y_scale)
    return Layer.from_quantized(q, a_format, lanes, name, depth=depth, bias=bias, requantize=requantize)
