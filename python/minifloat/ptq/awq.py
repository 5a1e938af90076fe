"""AWQ: scale up the weights that large inputs multiply before rounding, and scale the inputs down by as much.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .collect import Collector, Samples
from .foldable import find_folds
from .layer import Layer
from .recipe import Step, register
from .run import Run
from .smoothquant import rounding_error

SAMPLED_ROWS = 512


@register
@dataclass(frozen=True)
class AWQ(Step):
    """Scale input channels by a power of their mean magnitude, the power that makes the output error least.

    The inverse scales go into the module before (see foldable), so that the float model computes what it did. Layers
    without one stay as they are. What quantizes comes after this step.

    Attributes:
        points: powers tried, 0, 1 / points, ..., 1 - 1 / points. 0 is no scaling, so the error on the sampled inputs
            never rises.
        power_of_two: scales that are powers of two, which round no float weight.
    """

    name = "awq"
    changes = "floats"

    points: int = 20
    power_of_two: bool = False

    def __post_init__(self):
        if self.points < 1:
            raise ValueError(f"awq: points={self.points} must be at least 1")

    def apply(self, run: Run) -> None:
        run.float_only(self)
        folds = find_folds(run)
        if not folds:
            return
        seen = {fold.layers[0]: (MeanMagnitude(), Samples(SAMPLED_ROWS, run.generator)) for fold in folds}
        run.collect(seen, "observing inputs")  # one pass: no fold changes another one's inputs
        for fold in run.track(folds, "searching scales"):
            size, samples = seen[fold.layers[0]]

            def error(s, layers=fold.layers, rows=samples.value):
                return sum(rounding_error(layer, rows, s) for layer in layers)

            fold.scale(search_scales(size.value, error, self.points, self.power_of_two)[0])


class MeanMagnitude(Collector):
    """Mean of |x| of each input channel: float64 (channels,) in `value`."""

    def __init__(self):
        self._sum, self._count = 0.0, 0

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        x = layer.channels(x.detach())
        self._sum = self._sum + x.abs().double().sum(0)
        self._count += len(x)

    @property
    def value(self) -> torch.Tensor:
        return self._sum / self._count


def search_scales(
    size: torch.Tensor, error: Callable[[torch.Tensor], float], points: int = 20, power_of_two: bool = False
) -> tuple[torch.Tensor, list[float]]:
    """The scales size ** alpha with the least error, over alpha = 0, 1 / points, ...; and all errors in that order.

    They are normalised so that the least is the inverse of the largest.

    Args:
        size: (channels,), mean magnitudes of the inputs.
        error: of a layer, or several, for scales float64 (channels,) that its weights are multiplied by.
    """
    size = size.double().clamp_min(1e-4 * size.double().max().clamp_min(1e-30))
    candidates, errors = [], []
    for i in range(points):
        s = size ** (i / points)
        s = s / (s.max() * s.min()).sqrt()
        candidates.append(torch.exp2(s.log2().round()) if power_of_two else s)
        errors.append(error(candidates[-1]))
    return candidates[errors.index(min(errors))], errors
