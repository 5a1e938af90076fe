"""ANT: int, flint, power-of-two or float for each tensor, whichever has the least error.

Source: Guo et al., "ANT: Exploiting Adaptive Numerical Data Type for Low-bit Deep Neural Network Quantization", 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

from ..formats import Format, QuantSpec
from ..formats.codebooks import _flint, _signed
from .choice import Choice, choose, usual_float, with_format
from .choosing import set_best
from .layer import Layer
from .recipe import Step, register
from .run import Run
from .scales import ScaleRule


@register
@dataclass(frozen=True)
class ANT(Step):
    """Give each layer's weight, and its activation if that is quantized, the data type with the least output error.

    The error is that of rounding to nearest with the layer's scale rule. What quantizes comes after this step.
    """

    name = "ant"

    def apply(self, run: Run) -> None:
        set_best(run, self, self._pairs)

    @staticmethod
    def _pairs(layer: Layer):
        return product(typed(layer.weight), typed(layer.activation) if layer.activation else [None])


def typed(spec: QuantSpec) -> list[QuantSpec]:
    """spec with each of ANT's data types of its width."""
    return [with_format(spec, f) for f in primitives(spec.format.bits, spec.format.signed)]


def flint(bits: int, signed: bool = True) -> Format:
    """The flint format of 3 to 8 bits: an integer near zero, ever coarser floats above it; "flint4", "uflint4", ...

    Raises:
        ValueError: bits is out of range.
    """
    if not 3 <= bits <= 8:
        raise ValueError(f"flint has 3 to 8 bits, got {bits}")
    if signed:
        return Format.codebook(f"flint{bits}", _signed(_flint(bits - 1)))
    return Format.codebook(f"uflint{bits}", _flint(bits))


def primitives(bits: int, signed: bool = True) -> list[Format]:
    """ANT's data types of 3 to 8 bits: integer, flint, powers of two (no mantissa) and float, each once."""
    powers = f"e{bits - 1}m0" if signed else f"ue{bits}m0"
    found = [Format.parse(f"int{bits}" if signed else f"uint{bits}"), flint(bits, signed)]
    if powers != "ue8m0":  # a scale format without zero
        found.append(Format.parse(powers))
    return list(dict.fromkeys([*found, usual_float(bits, signed)]))


def choose_type(
    w: torch.Tensor, spec: str | QuantSpec, gram: torch.Tensor | None = None, rule: ScaleRule | None = None
) -> Choice:
    """w (N, K) in the primitive of spec's width with the least error, scaled as spec says.

    Args: as choice.choose. Raises:
        ValueError: spec does not have 3 to 8 bits.
    """
    return choose(w, typed(QuantSpec.parse(spec)), gram, rule)
