"""AWQ: scale up the weights that large inputs multiply before rounding, and scale the inputs down by as much.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .choice import activation_errors
from .choosing import Rows, float_grams
from .collect import Collector
from .errors import times_gram
from .foldable import Fold, find_folds
from .layer import Layer
from .recipe import Step, register
from .run import Run


@register
@dataclass(frozen=True)
class AWQ(Step):
    """Scale input channels by a power of their mean magnitude, the power that makes the output error least.

    The inverse scales go into the norm or layer before, found by trying (see foldable), so that the float model
    computes what it did. Layers without such a module before them stay as they are. What quantizes comes after.

    Attributes:
        points: powers tried, 0, 1 / points, ..., 1 - 1 / points. 0 is no scaling, so the error never rises.
        power_of_two: scales that are powers of two, which change no float output by a single bit.
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
        folds = [fold for fold in find_folds(run) if fold.producer is not None]
        for fold in run.track(folds, "searching scales"):
            fold.scale(self._search(run, fold))

    def _search(self, run: Run, fold: Fold) -> torch.Tensor:
        """The scales for one group. Earlier groups are scaled already, which its inputs show."""
        first = fold.layers[0]
        size, rows = MeanMagnitude(), Rows()
        grams = float_grams(run, [first], {first: [size, rows]})
        return search_scales(
            size.value,
            lambda s: sum(scaled_error(layer, s, grams[first], rows.value) for layer in fold.layers),
            self.points,
            self.power_of_two,
        )[0]


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

    Args:
        size: (channels,), mean magnitudes of the inputs.
        error: of a layer, or several, for scales float32 (channels,).
    """
    size = size.double().clamp_min(1e-4 * size.double().max().clamp_min(1e-30))
    candidates, errors = [], []
    for i in range(points):
        s = size ** (i / points)
        s = s / (s.max() * s.min()).sqrt()
        candidates.append((torch.exp2(s.log2().round()) if power_of_two else s).float())
        errors.append(error(candidates[-1]))
    return candidates[errors.index(min(errors))], errors


def scaled_error(layer: Layer, s: torch.Tensor, gram: torch.Tensor, x: torch.Tensor) -> float:
    """Squared output error of a layer whose columns are multiplied by s before rounding, and whose inputs are divided.

    Args:
        s: (channels,). gram: (1, K, K) of the inputs as they are. x: (1, M, K), some of them, for the error of rounding
            inputs where the layer does.
    """
    w = layer.matrix
    s = s.repeat_interleave(w.shape[1] // len(s))  # a convolution has several columns for a channel
    delta = layer.nearest(w * s).dequantize() / s - w
    error = (times_gram(delta, gram) * delta).double().sum().item()
    if layer.activation is not None:
        error += sum(activation_errors(x / s, [layer.activation], w * s).values())
    return error
