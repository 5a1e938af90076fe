"""MoFQ: an integer or a float format of the same width for each layer, whichever has the smaller error.

Source: Zhang et al., "Integer or Floating Point? New Outlooks for Low-Bit Quantization on Large Language Models", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import Format, QuantSpec
from .choice import Choice, choose, usual_float, with_format
from .choosing import Pair, set_best
from .layer import Layer
from .recipe import Step, register
from .run import Run
from .scales import ScaleRule


@register
@dataclass(frozen=True)
class MoFQ(Step):
    """Give each layer the integer or the float format of its width, by the error of its outputs.

    Weight and activation get the same kind, as hardware with one kind of multiplier asks for. The error is that of
    rounding to nearest with the layer's scale rule. What quantizes comes after this step: "mofq + gptq".
    """

    name = "mofq"

    def apply(self, run: Run) -> None:
        set_best(run, self, pairs)


def pairs(layer: Layer) -> list[Pair]:
    """The layer's specs with integers and with floats in them."""
    activations = both(layer.activation) if layer.activation else (None, None)
    return list(zip(both(layer.weight), activations, strict=True))


def both(spec: QuantSpec) -> tuple[QuantSpec, QuantSpec]:
    """spec with the integer and with the usual float of its width.

    Raises:
        ValueError: it has fewer than 3 bits.
    """
    f = spec.format
    integer = Format.parse(f"{'' if f.signed else 'u'}int{f.bits}")
    return with_format(spec, integer), with_format(spec, usual_float(f.bits, f.signed))


def int_or_float(
    w: torch.Tensor, spec: str | QuantSpec, gram: torch.Tensor | None = None, rule: ScaleRule | None = None
) -> Choice:
    """w (N, K) in the integer or the float format of spec's width, scaled as spec says: the one with the smaller error.

    Args and errors: as choice.choose. Raises:
        ValueError: spec has fewer than 3 bits.
    """
    return choose(w, both(QuantSpec.parse(spec)), gram, rule)
