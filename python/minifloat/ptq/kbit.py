"""Block-wise data types of k bits: int, float, dynamic exponent, quantiles of the data, quantiles of the normal.

Source: Dettmers and Zettlemoyer, "The case for 4-bit precision: k-bit Inference Scaling Laws", 2023; for the normal
quantiles Dettmers et al., "QLoRA", 2023.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from ..formats import Format, QuantSpec
from .choice import Choice, choose, usual_float, with_format
from .choosing import set_best
from .layer import Layer
from .recipe import Step, register
from .run import Run
from .scales import ScaleRule

TYPES = ("int", "float", "dynamic", "quantile", "normal")


@register
@dataclass(frozen=True)
class KBit(Step):
    """Give each layer's weight the block-wise data type of its width with the least output error.

    The error is that of rounding to nearest with the layer's scale rule (absmax as published, unless a step before
    changed it). What quantizes comes after this step.

    Attributes:
        types: which of "int", "float", "dynamic", "quantile", "normal" to choose from.
        block: elements that share a scale; None: as the layer's spec says. K must be a multiple of it.
    """

    name = "kbit"

    types: tuple = TYPES
    block: int | None = None

    def apply(self, run: Run) -> None:
        set_best(run, self, lambda layer: [(spec, layer.activation) for spec in self._specs(layer)])

    def _specs(self, layer: Layer) -> list[QuantSpec]:
        try:
            spec = blocked(layer.weight, self.block)
            spec.groups(layer.matrix.shape[1])
        except ValueError as error:
            raise ValueError(f"kbit: layer {layer.name!r}: {error}") from error
        return typed(layer.matrix, spec, self.types)


def blocked(spec: QuantSpec, block: int | None) -> QuantSpec:
    """spec with a scale for each block of this many elements, if that is given."""
    return spec if block is None else replace(spec, granularity="group", group_size=block)


def typed(w: torch.Tensor, spec: QuantSpec, types: Iterable[str]) -> list[QuantSpec]:
    """spec with each of these data types of its width for w (N, K)."""
    return [with_format(spec, data_type(kind, spec.format.bits, w, spec)) for kind in types]


def dynamic(bits: int) -> Format:
    """The dynamic type of 3 to 8 bits, "dynamic4", ...: sign, zeros as a decimal exponent, linear fraction."""
    _check_bits(bits)
    magnitudes = []
    for fraction_bits in range(bits - 1):
        count = 1 << fraction_bits
        for i in range(count):  # midpoints of `count` equal parts of [0.1, 1]
            midpoint = Fraction(1, 10) + Fraction(9, 10) * Fraction(2 * i + 1, 2 * count)
            magnitudes.append(midpoint / 10 ** (bits - 2 - fraction_bits))
    values = sorted([*magnitudes, *(-m for m in magnitudes), Fraction(0), Fraction(1)])
    return Format.codebook(f"dynamic{bits}", [float(np.float32(float(v))) for v in values])


def normal(bits: int) -> Format:
    """Quantiles of the normal distribution, rescaled to [-1, 1], 0 among them: "nf3", "nf4" (QLoRA's), ..., "nf8"."""
    _check_bits(bits)
    return Format.parse("nf4") if bits == 4 else Format.codebook(f"nf{bits}", normal_values(bits))


def normal_values(bits: int) -> list[float]:
    """The table of `normal`, ascending: one value more above zero than below it."""
    half = 1 << (bits - 1)
    tail = 1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2
    above, below = (
        torch.special.ndtri(torch.linspace(tail, 0.5, n + 1, dtype=torch.float64)[:-1]) for n in (half, half - 1)
    )
    values = torch.cat([-below, torch.zeros(1, dtype=torch.float64), above]).sort().values
    return (values / values.abs().max()).float().tolist()


def quantiles(w: torch.Tensor, bits: int, spec: QuantSpec) -> Format:
    """A table that follows the data: quantiles of w's elements, each divided by its block's absmax.

    The absmax itself is left out of them. The value nearest to zero is then moved to 0, and both sides are stretched to
    reach -1 and 1, which stand for the absmax. The table is named by its content, so that layers with different ones
    never share a name.

    Args:
        w: float (N, K). spec: whose scale per tensor, row or group the blocks are.
    """
    _check_bits(bits)
    groups = spec.groups(w.shape[1])
    blocks = w.reshape(1, 1, -1) if spec.granularity == "tensor" else w.reshape(w.shape[0], groups, -1)
    top = blocks.abs().amax(-1, keepdim=True)
    inner = (blocks / torch.where(top > 0, top, 1)).double()[blocks.abs() < top]
    values = quantile_values(inner.numpy() if len(inner) else np.zeros(1), bits)
    values[np.abs(values).argmin()] = 0
    values[0], values[-1] = min(values[0], -1e-6), max(values[-1], 1e-6)  # a side without data is one tiny value
    values = np.where(values < 0, values / -values[0], values / values[-1]).astype(np.float32).astype(np.float64)
    return Format.codebook(f"quantile{bits}_{zlib.crc32(values.tobytes()):08x}", values)


def quantile_values(x: np.ndarray, bits: int) -> np.ndarray:
    """The 2**bits values, ascending, that stand for parts of x of equal number.

    Value i = 1 .. 2**bits is the mean of quantiles i / (2**bits + 2) and (i + 1) / (2**bits + 2). The source divides by
    2**bits + 1, which cuts off one tail only.
    """
    edges = np.quantile(x, np.arange(1, 2**bits + 2) / (2**bits + 2))
    return (edges[:-1] + edges[1:]) / 2


def data_type(kind: str, bits: int, w: torch.Tensor, spec: QuantSpec) -> Format:
    """The format of one of TYPES.

    Raises:
        ValueError: unknown kind, or bits is not 3 to 8.
    """
    makers = {
        "int": lambda: Format.parse(f"int{bits}"),
        "float": lambda: usual_float(bits),
        "dynamic": lambda: dynamic(bits),
        "quantile": lambda: quantiles(w, bits, spec),
        "normal": lambda: normal(bits),
    }
    if kind not in makers:
        raise ValueError(f"kbit: unknown data type {kind!r}: choose of {', '.join(TYPES)}")
    return makers[kind]()


def choose_type(
    w: torch.Tensor,
    spec: str | QuantSpec,
    gram: torch.Tensor | None = None,
    rule: ScaleRule | None = None,
    types: Iterable[str] = TYPES,
    block: int | None = None,
) -> Choice:
    """w (N, K) in the data type of spec's width with the least error.

    Args:
        types: the kinds to choose from.
        block: elements that share a scale, 32 to 1024 in the source; None: as spec says.
        the others: as in choice.choose; rule None is absmax, as published.
    Raises:
        ValueError: K is not a multiple of the block, spec does not have 3 to 8 bits, or a type is unknown.
    """
    spec = blocked(QuantSpec.parse(spec), block)
    return choose(w, typed(w, spec, types), gram, rule or ScaleRule("absmax"))


def _check_bits(bits: int) -> None:
    if not 3 <= bits <= 8:
        raise ValueError(f"kbit: block-wise data types have 3 to 8 bits, got {bits}")
