"""Coordinate descent: move one code at a time to the best representable value, given all the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..qtensor import QTensor
from .collect import Hessian
from .errors import row_errors, times_gram
from .neighbours import grid_of, steps_and_zeros, with_codes
from .recipe import Step, register
from .run import Run


@register
@dataclass(frozen=True)
class CoordinateDescent(Step):
    """Improve each layer's codes one at a time, on what the quantized layers before it put out.

    A layer that is quantized already starts from what it is ("gptq + coordinate_descent"), another from rounding to
    nearest. Its error on the calibration inputs never rises.

    Attributes:
        sweeps: passes over the inputs.
    """

    name = "coordinate_descent"

    sweeps: int = 4

    def __post_init__(self):
        if self.sweeps < 1:
            raise ValueError(f"coordinate_descent: sweeps={self.sweeps} must be at least 1")

    def apply(self, run: Run) -> None:
        for block in run.sequence():
            for layer in block.layers:
                if run.restored(layer):
                    continue
                hessian = Hessian()
                run.collect({layer: hessian})
                start = layer.start(self)
                run.set_weight(layer, descend(layer.matrix, start, hessian.value, self.sweeps))


def descend(w: torch.Tensor, q: QTensor, gram: torch.Tensor, sweeps: int = 2) -> QTensor:
    """q with codes for which no row's output error is larger, and most are smaller.

    With all other weights of a row fixed, its error is a parabola in w[n, k], whose minimum is at
    q[n, k] - (error @ gram)[n, k] / gram[k, k]; the representable value nearest to that is the best one. Each sweep
    visits k = 0..K-1 once and costs as much as one product (N, K) x (K, K).

    Args:
        w: float (N, K). q: where to start; its scales stay. gram: (K, K) or (R, K, K), as gram_of returns it.
    """
    values, codes = grid_of(q.spec.format)
    midpoints = values[:-1] + (values[1:] - values[:-1]) / 2
    step, zero = steps_and_zeros(q)
    gram = gram.double().reshape(-1, *gram.shape[-2:])
    rows = q.shape[0] // max(len(gram), 1)  # rows that share a gram
    now = q.dequantize().double()
    chosen = q.codes
    pull = times_gram(now - w.double(), gram)
    for k in [*range(q.shape[1])] * sweeps:
        curvature = gram[:, k, k].repeat_interleave(rows)  # 0 where the input is always zero: the weight stays
        target = now[:, k] - torch.where(curvature > 0, pull[:, k] / curvature, 0)
        index = torch.bucketize(target / step[:, k] + zero[:, k], midpoints)
        better = (values[index] - zero[:, k]) * step[:, k]
        pull += (better - now[:, k])[:, None] * gram[:, k].repeat_interleave(rows, 0)
        now[:, k], chosen[:, k] = better, codes[index]
    made = with_codes(q, chosen)
    return best_rows(w, gram, q, made)


def best_rows(w: torch.Tensor, gram: torch.Tensor | None, *candidates: QTensor) -> QTensor:
    """Each row from the candidate with the smallest error in it; the candidates share their scales."""
    errors = torch.stack([row_errors(w, q, gram) for q in candidates])
    codes = torch.stack([q.codes for q in candidates])
    rows = torch.arange(codes.shape[1])
    return with_codes(candidates[0], codes[errors.argmin(0), rows])
