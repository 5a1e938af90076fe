"""FFP8: exponent bits, exponent bias and signedness chosen for each tensor, with no scale beside them.

Source: Huang et al., "All-You-Can-Fit 8-Bit Flexible Floating-Point Format for Accurate and Memory-Efficient Inference
of Deep Neural Networks", 2021 (arXiv 2104.07329).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from ..formats import Format, QuantSpec
from .choice import Choice
from .choosing import float_grams
from .collect import Collector
from .errors import error
from .layer import Layer
from .recipe import Step, register
from .run import Run
from .scales import Scales

CLIPPED = range(-1, 3)  # biases tried: one that leaves a binade free, the one that just fits, two that clip


class Least(Collector):
    """The least element of a layer's inputs, in `value`."""

    def __init__(self):
        self.value = math.inf

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        self.value = min(self.value, layer.shifted(x).min().item())


@register
@dataclass(frozen=True)
class FFP8(Step):
    """Quantize each weight to the flexible float of its width with the least output error.

    The activation's format becomes unsigned, with one more mantissa bit, where no input of the layer is negative on
    the calibration data, as after a ReLU. Its bias needs no choice: the scale found at run time takes its place.

    Attributes:
        exponent_bits: those tried for weights.
        weights, activations: which of the two to change.
    """

    name = "ffp8"

    exponent_bits: tuple = (2, 3, 4, 5)
    weights: bool = True
    activations: bool = True

    def apply(self, run: Run) -> None:
        run.float_only(self)
        todo = [layer for layer in run.layers if not run.restored(layer)]
        if not todo:
            return
        least = {layer: Least() for layer in todo}
        if self.weights:
            grams = float_grams(run, todo, {layer: [found] for layer, found in least.items()})
        else:
            with run.as_float():
                run.collect(least, "observing inputs")
        for layer in run.track(todo, self.name):
            if self.activations and layer.activation and least[layer].value >= 0:
                layer.activation = unsigned_spec(layer.activation)
            if not self.weights:
                run.keep(layer)
                continue
            found = choose_flexible(layer.matrix, layer.weight.format.bits, grams[layer], self.exponent_bits)
            layer.weight = found.spec
            run.set_weight(layer, found.q)


def flexible(exponent_bits: int, bits: int, signed: bool, bias: int) -> Format:
    """The float of this many bits in which every code is a number, with this exponent bias."""
    mantissa_bits = bits - exponent_bits - signed
    name = f"{'' if signed else 'u'}e{exponent_bits}m{mantissa_bits}b{bias}"
    return Format.parse(name + ("finite" if bits == 8 else ""))


def fitting_bias(exponent_bits: int, bits: int, signed: bool, largest: float) -> int:
    """The greatest bias with which the format still reaches `largest`, within what float32 holds."""
    f = flexible(exponent_bits, bits, signed, 0)
    bias = math.floor(math.log2(f.max / largest)) if largest > 0 else 0
    lowest, highest = 2**exponent_bits - 1 - 127, f.unit + 149
    return min(max(bias, lowest - CLIPPED[0]), highest - CLIPPED[-1])


def choose_flexible(
    w: torch.Tensor, bits: int = 8, gram: torch.Tensor | None = None, exponent_bits=range(2, 6)
) -> Choice:
    """w (N, K) in the flexible float with the least error; unsigned if w has no negative element.

    The scale of the QTensor is 1: the bias alone puts the format where the values are.

    Args:
        bits: 3 to 8. exponent_bits: the splits that are tried, where a bit is left for each.
        gram: as in choice.choose.
    """
    signed = bool((w < 0).any())
    largest = w.abs().max().item()
    best, errors = None, {}
    for e in exponent_bits:
        if e + signed > bits:
            continue
        fit = fitting_bias(e, bits, signed, largest)
        for bias in (fit + extra for extra in CLIPPED):
            spec = QuantSpec(flexible(e, bits, signed, bias), "tensor", scale_format="e8m0fnu")
            scales = Scales(spec, torch.ones(1, 1))
            q = scales.qtensor(scales.codes(w))
            errors[str(q.spec)] = error(w, q, gram)
            if best is None or errors[str(q.spec)] < errors[str(best.spec)]:
                best = q
    if best is None:
        raise ValueError(f"ffp8: no split of {bits} bits has {list(exponent_bits)} exponent bits: give fewer of them")
    return Choice(best, errors[str(best.spec)], errors)


def unsigned_of(f: Format) -> Format | None:
    """The unsigned format that spends f's sign bit on one more mantissa bit, as for inputs after a ReLU.

    None if f is unsigned already, or a codebook.
    """
    if not f.signed or f.kind == "codebook":
        return None
    return Format.parse(f"uint{f.bits}" if f.kind == "int" else f"ue{f.exponent_bits}m{f.mantissa_bits + 1}")


def unsigned_spec(spec: QuantSpec) -> QuantSpec:
    """spec with its format's unsigned form, where there is one."""
    f = unsigned_of(spec.format)
    return spec if f is None else replace(spec, format=f)
