"""AdaRound: learn, by gradient, whether each weight goes to the representable value below or above it.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..qtensor import QTensor
from .collect import Hessian
from .descend import best_rows, descend
from .errors import row_errors, times_gram
from .layer import Layer
from .neighbours import neighbours, with_codes
from .recipe import Step, register
from .run import Run

GAMMA, ZETA = -0.1, 1.1  # the sigmoid is stretched to this range and cut off at 0 and 1, so that it reaches both


@dataclass(frozen=True)
class Schedule:
    """How long and how fast rounding is learned.

    Attributes:
        steps: gradient steps. rate: learning rate of Adam.
        regularization: weight of the term that drives h to 0 or 1, for an error of 1 per row before the first step.
        warm_up: part of the steps without that term. beta_start, beta_end: its exponent, annealed along a half cosine.
    """

    steps: int = 300
    rate: float = 0.03
    regularization: float = 1.0
    warm_up: float = 0.2
    beta_start: float = 20.0
    beta_end: float = 2.0

    def __post_init__(self):
        if self.steps < 1 or not 0 < self.rate < math.inf:
            raise ValueError(
                f"learned rounding takes steps >= 1 and rate > 0, got steps={self.steps}, rate={self.rate}"
            )
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up is the part of the steps without regularization: below 1, got {self.warm_up}")

    def penalty(self, step: int, h: torch.Tensor) -> torch.Tensor:
        """The regularizer at this step, 0-d: regularization * sum of 1 - |2h - 1| ** beta."""
        progress = (step / self.steps - self.warm_up) / (1 - self.warm_up)
        if progress < 0:
            return h.new_zeros(())
        beta = self.beta_end + (self.beta_start - self.beta_end) * (1 + math.cos(math.pi * progress)) / 2
        return self.regularization * (1 - (2 * h - 1).abs() ** beta).sum()


@register
@dataclass(frozen=True)
class AdaRound(Step):
    """Learn each layer's rounding for a small error of its outputs, on what the quantized layers before it put out.

    A layer that is quantized already starts from what it is ("gptq + adaround"), another from rounding to nearest. Its
    error on the calibration inputs never rises.

    Attributes:
        steps: gradient steps for a layer. rate: of Adam. regularization: see Schedule.
        sweeps: passes of coordinate descent afterwards; 0 leaves the method as published.
    """

    name = "adaround"

    steps: int = 300
    rate: float = 0.03
    regularization: float = 1.0
    sweeps: int = 2

    def __post_init__(self):
        self._schedule()

    def _schedule(self) -> Schedule:
        return Schedule(self.steps, self.rate, self.regularization)

    def apply(self, run: Run) -> None:
        for block in run.sequence():
            for layer in block.layers:
                if run.restored(layer):
                    continue
                gram = input_gram(run, layer)
                start = layer.start(self)
                learned = learn_rounding(layer.matrix, start, gram, self._schedule(), self.sweeps)
                run.set_weight(layer, learned)


def input_gram(run: Run, layer: Layer) -> torch.Tensor:
    """Mean of x^T x over the layer's inputs in the model as it is now: float32 (row_groups, K, K)."""
    hessian = Hessian()
    run.collect({layer: hessian})
    return (hessian.value / hessian.count).float()


class SoftRounding:
    """A weight between its two neighbours: low + (high - low) * h(v), with v to be learned and 0 <= h <= 1.

    The spacing is the neighbours' own, so it may differ from weight to weight, as in minifloats and codebooks.

    Attributes:
        v: float32 (N, K), a leaf that requires grad; at first the soft weight is the float one, if within range.
    """

    def __init__(self, w: torch.Tensor, q: QTensor):
        self.q, self.between = q, neighbours(w, q)
        self.gap = self.between.high - self.between.low
        fraction = (w - self.between.low) / torch.where(self.gap > 0, self.gap, torch.inf)
        self.v = torch.logit((fraction.clamp(0, 1) - GAMMA) / (ZETA - GAMMA)).requires_grad_()

    def h(self) -> torch.Tensor:
        """The rectified sigmoid of v."""
        return (torch.sigmoid(self.v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def weight(self, h: torch.Tensor) -> torch.Tensor:
        return self.between.low + self.gap * h

    def hardened(self) -> QTensor:
        """Each weight at the neighbour that h is nearer to."""
        up = self.h().detach() >= 0.5
        return with_codes(self.q, torch.where(up, self.between.high_codes, self.between.low_codes))


def learn_rounding(
    w: torch.Tensor, q: QTensor, gram: torch.Tensor, schedule: Schedule | None = None, sweeps: int = 2
) -> QTensor:
    """q with codes that are learned to make the layer's outputs, and not each weight, as near as can be to w's.

    Minimises, row by row, (q - w) gram (q - w)^T plus the penalty. What is learned replaces a row of q only where its
    error is smaller; then coordinate descent goes on from there. So no row's error is larger than q's.

    Args:
        w: float32 (N, K). q: w quantized in any way; its scales stay.
        gram: (K, K) or (R, K, K), mean of x^T x over the calibration inputs, as gram_of returns it.
        sweeps: passes of coordinate descent at the end; 0 leaves the method as published.
    """
    schedule = schedule or Schedule()
    soft = SoftRounding(w, q)
    adam = torch.optim.Adam([soft.v], lr=schedule.rate)
    start = row_errors(w, q, gram).float()
    weight = torch.where(start > 0, 1 / start.clamp_min(torch.finfo(torch.float32).tiny), 0)
    for step in range(schedule.steps):
        adam.zero_grad()
        with torch.enable_grad():
            h = soft.h()
            rounded = soft.weight(h)
            # The gradient of the quadratic, worked out by hand: one product less than autograd's.
            slope = 2 * weight[:, None] * times_gram(rounded.detach() - w, gram)
            ((rounded * slope).sum() + schedule.penalty(step, h)).backward()
        adam.step()
    learned = best_rows(w, gram, q, soft.hardened())
    return descend(w, learned, gram, sweeps) if sweeps else learned
