"""How a weight format and an activation format multiply: the carrier of the digits and the width of the accumulator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .formats import QuantSpec

CARRIERS = ("int8", "int16", "float64", "wide")


@dataclass(frozen=True)
class Plan:
    """What every backend needs to know of a pair of quantized operands; no format names from here on.

    weight, activation: the specs. Integers below are of grid values with the zero point subtracted.
    """

    weight: QuantSpec
    activation: QuantSpec

    @property
    def unit(self) -> int:
        """A product of two grid integers is worth 2**unit."""
        return self.weight.format.unit + self.activation.format.unit

    @cached_property
    def weight_range(self) -> tuple[int, int]:
        return integer_range(self.weight)

    @cached_property
    def activation_range(self) -> tuple[int, int]:
        return integer_range(self.activation)

    @cached_property
    def max_product(self) -> int:
        """Largest |weight integer * activation integer|."""
        return max(map(abs, self.weight_range)) * max(map(abs, self.activation_range))

    def accumulator_bits(self, k: int) -> int:
        """Width of a two's complement accumulator that holds any sum of k products: 1 + ceil(log2(k * max + 1))."""
        return 1 + (k * self.max_product).bit_length()

    def carrier(self, length: int) -> str:
        """The narrowest kind of digit that is exact for a sum of `length` products.

        int8: weights span at most 256 integers and activations fit int8, so that u8 x s8 products with an offset serve;
        int16: both fit int16; float64: every partial sum is below 2**53; wide: none of these.
        """
        (w_low, w_high), (a_low, a_high) = self.weight_range, self.activation_range
        if w_high - w_low <= 255 and a_low >= -128 and a_high <= 127 and length * 256 * 128 < 2**31:
            return "int8"
        exact_in_float64 = length * self.max_product < 2**53
        if exact_in_float64 and max(-w_low, w_high, -a_low, a_high) <= 32767:
            return "int16"
        return "float64" if exact_in_float64 else "wide"


def integer_range(spec: QuantSpec) -> tuple[int, int]:
    """The smallest and largest integer an element stands for, zero point subtracted."""
    grid = spec.format.grid
    low, high = int(np.min(grid)), int(np.max(grid))
    return (low - high, high - low) if spec.zero_point else (low, high)
