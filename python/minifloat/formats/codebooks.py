"""Value tables of published codebooks, in code order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def _dynamic8() -> list[float]:
    """8-bit dynamic type: sign, a run of zeros as decimal exponent 0..-6, the rest a linear fraction in (0.1, 1).

    Codes are ranks: the 256 values in ascending order. Each is rounded once to float32.
    Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", section 2.1 and figure 2.
    """
    magnitudes = []
    for fraction_bits in range(7):
        count = 1 << fraction_bits
        for i in range(count):  # midpoints of `count` equal parts of [0.1, 1]
            midpoint = Fraction(1, 10) + Fraction(9, 10) * Fraction(2 * i + 1, 2 * count)
            magnitudes.append(midpoint / 10 ** (6 - fraction_bits))
    values = [*magnitudes, *(-m for m in magnitudes), Fraction(0), Fraction(1)]
    return [float(np.float32(float(v))) for v in sorted(values)]


def _flint(bits: int) -> list[float]:
    """Unsigned flint of `bits` bits: the leading one's position is the exponent, and it grows again below the top bit.

    With the top bit clear the code is a plain integer; with it set, the code counts leading ones' positions downward:
    11xx, 101x, 1001, 1000 are exponents 3, 4, 5, 6 for 4 bits.
    Source: Guo et al., "ANT: Exploiting Adaptive Numerical Data Type for Low-bit DNN Quantization", table 2.
    """
    half = 1 << (bits - 1)
    values = [float(code) for code in range(half)]
    for rest in range(half):  # the bits below the set top bit
        if rest == 0:
            values.append(2.0 ** (2 * (bits - 1)))
            continue
        fraction_bits = rest.bit_length() - 1
        fraction = (rest - (1 << fraction_bits)) / (1 << fraction_bits)
        exponent = (bits - 1) + (bits - 2 - fraction_bits)
        values.append(2.0**exponent * (1 + fraction))
    return values


def _signed(magnitudes: list[float]) -> list[float]:
    return magnitudes + [-m for m in magnitudes]


# Source: Dettmers et al., "QLoRA", appendix E (quantiles of a normal distribution, rescaled to [-1, 1]).
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]

TABLES: dict[str, list[float]] = {
    "binary": [-1.0, 1.0],
    "ternary": [0.0, 1.0, 0.0, -1.0],  # two's complement of 2 bits; the fourth code is a second zero
    "nf4": NF4,
    "dynamic8": _dynamic8(),
    "flint4": _signed(_flint(3)),
    "uflint4": _flint(4),
}
