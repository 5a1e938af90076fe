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

        int8: weight codes span at most 256 integers and activations fit int8, so that u8 x s8 products with an offset
        serve; int16: both fit int16 and the sum int32; float64: every partial sum is below 2**53; wide: none of these.
        """
        a_low, a_high = self.activation_range
        if self._weight_span <= 255 and a_low >= -128 and a_high <= 127 and length * 256 * 128 < 2**30:
            return "int8"
        largest = max(map(abs, self.weight_range + self.activation_range))
        if largest <= 32767 and length * self.max_product < 2**31:
            return "int16"
        return "float64" if length * self.max_product < 2**53 else "wide"

    @property
    def int16_windows(self) -> bool:
        """float64 carrier: whether integers do as well: weights are signed minifloats with up to 5 exponent bits.

        Their significands, shifted by the exponents of one of up to three windows, fit int16, and activations 8 bits.
        """
        f = self.weight.format
        small = max(map(abs, self.activation_range)) <= 128
        return small and f.kind == "float" and f.signed and f.exponent_bits <= 5 and 0 < f.mantissa_bits <= 3

    @property
    def _weight_span(self) -> int:
        grid = self.weight.format.grid
        return int(grid.max()) - int(grid.min())  # e6m0's is 2**63, more than int64 holds

    @property
    def offset(self) -> int:
        """int8 carrier: a weight's digit is its grid integer minus this, 0..255; 0 where the grid is wider."""
        return int(self.weight.format.grid.min()) if self._weight_span <= 255 else 0

    @cached_property
    def _digit_range(self) -> tuple[int, int]:
        """The smallest and largest activation integer that quantizing x at run time makes."""
        spec = self.activation
        low, high = self.activation_range
        full_range = spec.scale_format == "float32" and spec.scale_rule == "absmax" and not spec.zero_point
        if spec.format.kind == "int" and full_range and low < -high < 0:
            # |x| / (absmax / high) <= high * (1 + 2**-23), which rounds to at most high: the lowest code is never made.
            # The mse rule tries smaller scales, which do make it.
            low = -high
        return low, high

    @property
    def largest_activation(self) -> int:
        """The largest magnitude of the activation integers that quantizing x at run time makes."""
        return max(map(abs, self._digit_range))

    @property
    def int16_depth(self) -> int:
        """int8 carrier: how many pairs of digit products an int16 sum holds for certain; 0 if not even one."""
        pair = 2 * self._weight_span * self.largest_activation
        return min(32767 // max(pair, 1), 1 << 20)

    @property
    def signed_depth(self) -> int:
        """int8 carrier: the same for |w| times the activation with w's sign; 0 if that is -128 and has no negative."""
        largest = int(np.abs(self.weight.format.grid).max())
        if largest > 128 or self._digit_range[0] < -127:
            return 0
        return min(32767 // max(2 * largest * self.largest_activation, 1), 1 << 20)


def integer_range(spec: QuantSpec) -> tuple[int, int]:
    """The smallest and largest integer an element stands for, zero point subtracted."""
    grid = spec.format.grid
    low, high = int(np.min(grid)), int(np.max(grid))
    return (low - high, high - low) if spec.zero_point else (low, high)
