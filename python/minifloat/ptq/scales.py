"""Scales of weights: how they are found, and matrices rounded with given ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..formats import QuantSpec
from ..nn.rounding import scaled_values
from ..ops.records import operand_record
from ..qtensor import QTensor, quantize, store_scales
from .recipe import Step, register

if TYPE_CHECKING:
    from .run import Run

RULES = ("absmax", "percentile", "mse")
SHRINK = torch.linspace(1, 0.3, 57)  # factors on the absmax scale that the mse rule tries
SHRINK_E8M0 = torch.tensor([1.0, 2.0, 0.5, 0.25])
SMALLEST, LARGEST = 2.0**-126, torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Scales:
    """The scales that a matrix (N, K) is rounded with.

    Attributes:
        spec: of the matrix.
        values: float32, (N, groups) or (1, 1): decoded, without the second-level scale.
        zero_points: float32, shape of values, whole numbers; None without.
        tensor_scale: second level of e4m3fn scales, 1 otherwise.
    """

    spec: QuantSpec
    values: torch.Tensor
    zero_points: torch.Tensor | None = None
    tensor_scale: float = 1.0

    @staticmethod
    def of(q: QTensor) -> Scales:
        """The scales of a quantized matrix."""
        return Scales(q.spec, q.scales, q._zero_point_values(), q._tensor_scale())

    @property
    def step(self) -> torch.Tensor:
        """float32, shape of values: what an element's value is multiplied with."""
        return self.values * self.tensor_scale

    def codes(self, w: torch.Tensor) -> torch.Tensor:
        """uint8, (N, K): w, float32 (N, K), rounded to nearest."""
        return torch.ops.minifloat.quantize(
            w, operand_record(self.spec), self.values, self.zero_points, self.tensor_scale
        )[0]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """float32, (N, K): what the codes are worth."""
        return torch.ops.minifloat.dequantize(
            codes, self.values, self.zero_points, self.tensor_scale, operand_record(self.spec)
        )

    def round(self, w: torch.Tensor) -> torch.Tensor:
        """float32, (N, K): the nearest matrix that these scales can hold."""
        return self.decode(self.codes(w))

    def elements(self, rows: torch.Tensor, k: torch.Tensor) -> Scales:
        """The scales of the elements (rows[i], k[i]) of the matrix, as those of a matrix (len(rows), 1)."""
        if self.spec.granularity == "tensor":
            rows, k = torch.zeros_like(rows), torch.zeros_like(k)
        g = k // self.spec.group_size if self.spec.group_size else torch.zeros_like(k)
        points = None if self.zero_points is None else self.zero_points[rows, g, None]
        spec = replace(self.spec, granularity="row", group_size=None)
        return Scales(spec, self.values[rows, g, None], points, self.tensor_scale)

    def qtensor(self, codes: torch.Tensor) -> QTensor:
        """The quantized matrix of these codes (N, K)."""
        f = self.spec.format
        points = None
        if self.zero_points is not None:
            points = (self.zero_points.to(torch.int32) & ((1 << f.bits) - 1)).to(torch.uint8)
        second = torch.tensor(self.tensor_scale) if self.spec.scale_format == "e4m3fn" else None
        stored = store_scales(self.values.contiguous(), self.spec.scale_format)
        return QTensor(self.spec, codes.shape, torch.ops.minifloat.pack(codes, f.bits), stored, points, second)


@dataclass(frozen=True)
class ScaleRule:
    """How scales are chosen.

    Attributes:
        rule: "absmax": nothing is clipped (OCP MX's floor rule for e8m0). "percentile": this percentile of the
            magnitudes stands in for absmax. "mse": of the absmax scale times 1, 0.9875, ..., 0.3 (e8m0: times
            1, 2, 1/2, 1/4), the one with the least squared error.
        percentile: above 0, at most 100.
        power_of_two: float scales are rounded to powers of two: up under absmax, so that nothing is clipped,
            to the nearest otherwise.
    """

    rule: str = "absmax"
    percentile: float = 99.9
    power_of_two: bool = False

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"scale rule {self.rule!r} must be one of {', '.join(RULES)}")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile {self.percentile} must be above 0 and at most 100")

    def find(
        self,
        w: torch.Tensor,
        spec: QuantSpec,
        importance: torch.Tensor | None = None,
        tensor_scale: float | None = None,
    ) -> Scales:
        """Scales for w, float32 (N, K).

        Args:
            importance: (K,) or (N, K), weights of the squared errors that "mse" adds up; None: all equal.
            tensor_scale: for specs with e4m3fn scales, where w is a part of a matrix that has this one already.
        """
        if self == ScaleRule(spec.scale_rule) and self.rule == "absmax" and tensor_scale is None:
            return Scales.of(quantize(w, spec))  # the rule of mf.quantize, to the bit
        blocks = _blocks(w, spec)
        if self.rule == "percentile":
            blocks = _clip(blocks, self.percentile)
        second = 1.0
        if spec.scale_format == "e4m3fn":
            second = tensor_scale or max(float(blocks.abs().max()) / (448 * spec.format.scale_max), SMALLEST)
        exact, best, least = _blocks(w, spec), None, None
        weights = None if importance is None else _blocks(importance.float().expand_as(w), spec)
        for factor in self._factors(spec):
            found = self._candidate(blocks, spec, float(factor), second)
            if self.rule != "mse":
                return found
            error = _squared_error(found, exact, weights)
            if best is None:
                best, least = found, error
                continue
            better = error < least
            points = None if best.zero_points is None else torch.where(better, found.zero_points, best.zero_points)
            best = Scales(spec, torch.where(better, found.values, best.values), points, second)
            least = torch.minimum(error, least)
        return best

    def _factors(self, spec: QuantSpec) -> torch.Tensor:
        if self.rule != "mse":
            return SHRINK[:1]
        return SHRINK_E8M0 if spec.scale_format == "e8m0fnu" or self.power_of_two else SHRINK

    def _candidate(self, blocks: torch.Tensor, spec: QuantSpec, factor: float, second: float) -> Scales:
        """Scales that map `factor` times each block's range to the format's. blocks: (N, groups, G)."""
        f = spec.format
        if spec.zero_point:
            low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
            values = self._store((high - low) / (f.max - f.min) * factor, spec)
            points = torch.round(f.min - low * factor / values).clamp(f.min, f.max)
            return Scales(spec, values, points)
        top = (blocks.abs() if f.signed else blocks.clamp(min=0)).amax(-1)
        if spec.scale_format == "e8m0fnu":
            exponent = torch.frexp(top)[1] - torch.frexp(torch.tensor(f.scale_max))[1]
            values = torch.ldexp(torch.ones_like(top), exponent) * factor
            return Scales(spec, torch.where(top == 0, SMALLEST, values).clamp(SMALLEST, 2.0**127))
        return Scales(spec, self._store(top / f.scale_max * factor / second, spec), None, second)

    def _store(self, raw: torch.Tensor, spec: QuantSpec) -> torch.Tensor:
        """The positive float32 scales that the scale format holds."""
        raw = raw.clamp(SMALLEST, LARGEST)
        if self.power_of_two:
            exponent = raw.log2()
            exponent = exponent.ceil() if self.rule == "absmax" else exponent.round()
            raw = torch.exp2(exponent.clamp(-126, 127))
        if spec.scale_format == "bfloat16":
            return raw.clamp(max=3.3895314e38).bfloat16().float()
        if spec.scale_format == "e4m3fn":
            return raw.clamp(2.0**-9, 448).to(torch.float8_e4m3fn).float()
        return raw


@register
@dataclass(frozen=True)
class FindScales(Step):
    """How the scales of weights are chosen by every later step: see ScaleRule for the settings.

    Source: "mse" and "percentile" as in Nagel et al., "A White Paper on Neural Network Quantization", section 3.1.
    """

    name = "scales"

    rule: str = "mse"
    percentile: float = 99.9
    power_of_two: bool = False

    def __post_init__(self):
        self._rule()

    def _rule(self) -> ScaleRule:
        return ScaleRule(self.rule, self.percentile, self.power_of_two)

    def apply(self, run: Run) -> None:
        for layer in (*run.layers, *run.embeddings):
            layer.rule = self._rule()


def _blocks(w: torch.Tensor, spec: QuantSpec) -> torch.Tensor:
    """w (N, K) as (N, groups, G), or (1, 1, N * K): what shares a scale."""
    if spec.granularity == "tensor":
        return w.reshape(1, 1, -1)
    return w.reshape(w.shape[0], spec.groups(w.shape[1]), -1)


def _squared_error(scales: Scales, blocks: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """float32 (N, groups): of blocks (N, groups, G), rounded with these scales; each element's with its weight."""
    step = scales.step[..., None]
    points = None if scales.zero_points is None else scales.zero_points[..., None]
    error = scaled_values(blocks, scales.spec, step, points).mul_(step).sub_(blocks).square_()
    return (error if weights is None else error.mul_(weights)).sum(-1)


def _clip(blocks: torch.Tensor, percentile: float) -> torch.Tensor:
    """Each block within plus and minus the percentile of its magnitudes (the smallest value that many reach)."""
    rank = max(1, math.ceil(blocks.shape[-1] * percentile / 100))
    top = blocks.abs().kthvalue(rank, dim=-1, keepdim=True).values
    return torch.maximum(torch.minimum(blocks, top), -top)
