"""Requantizing exact sums: out = the format's code nearest to sum * multiplier / 2**shift, on integers only.

This is the reference, written from the definition; requantizer.py emits the circuit, built the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..formats import Format
from ..formats.encoding import line


@dataclass(frozen=True)
class Requantize:
    """value = sum * multipliers[row] * 2**-shift, rounded to `format`: nearest, ties to the even code, saturated.

    Attributes:
        format: an integer or float format.
        multipliers: unsigned, one per output row, or one for all.
        shift: the binary point of the product.
    """

    format: Format
    multipliers: tuple[int, ...]
    shift: int

    def __post_init__(self):
        if self.format.kind == "codebook" or self.format.special == "fnu":
            raise ValueError(
                f"requantizing to {self.format} is not supported: use an integer or a float format with a zero"
            )
        if any(m < 0 for m in self.multipliers) or not any(self.multipliers):
            raise ValueError("requantizing needs multipliers of 0 or more, with one that is not 0")
        if self.fraction_bits < 1:
            raise ValueError(
                f"shift={self.shift} leaves nothing to round to {self.format}: scale multipliers and shift up"
            )

    @staticmethod
    def from_scales(format: Format, scales: np.ndarray, multiplier_bits: int = 16) -> Requantize:
        """Multipliers and the shift that come closest to real factors, one per row.

        Args:
            scales: float64, (N,), positive: value = sum * scale.
            multiplier_bits: width of the largest multiplier; its relative error is below 2**-multiplier_bits.
        """
        scales = np.asarray(scales, dtype=np.float64).ravel()
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            raise ValueError("requantizing needs finite scales above 0")
        shift = multiplier_bits - int(np.frexp(scales.max())[1])
        shift = max(shift, 1 - format.unit)
        multipliers = [int(m) for m in np.rint(np.ldexp(scales, shift))]
        limit = (1 << multiplier_bits) - 1
        return Requantize(format, tuple(min(m, limit) for m in multipliers), shift)

    @property
    def fraction_bits(self) -> int:
        """Bits of the product below one grid step of the format."""
        return self.shift + self.format.unit

    @cached_property
    def multiplier_bits(self) -> int:
        return max(max(self.multipliers).bit_length(), 1)

    def __call__(self, sums: np.ndarray) -> np.ndarray:
        """uint8 codes, (M, N), of integer sums (M, N) of any size."""
        multipliers = np.broadcast_to(np.array(self.multipliers, dtype=object), sums.shape[-1:])
        products = np.asarray(sums).astype(object) * multipliers
        return np.vectorize(self.round, otypes=[np.uint8])(products)

    def round(self, product: int) -> int:
        """The code of product * 2**-shift: found among all values by exact comparison."""
        twice_middles, codes, ties = self._table
        position = product << 1
        low, high = 0, len(twice_middles)
        while low < high:
            middle = (low + high) // 2
            if position > twice_middles[middle] or (position == twice_middles[middle] and ties[middle]):
                low = middle + 1
            else:
                high = middle
        code = codes[low]
        negative_zero = self.format.negative_zero_code
        if product < 0 and negative_zero is not None and self.format.grid[code] == 0:
            return negative_zero
        return code

    @cached_property
    def _table(self) -> tuple[list[int], list[int], list[bool]]:
        """Twice the midpoints between neighbouring values, in units of 2**-shift; the codes; whether a tie goes up."""
        steps = line(self.format)
        codes = [int(c) for c in steps.codes[1:-1]]
        grid = [int(self.format.grid[c]) << self.fraction_bits for c in codes]
        return [x + y for x, y in zip(grid, grid[1:], strict=False)], codes, [bool(t) for t in steps.tie_up[1:-1]]
