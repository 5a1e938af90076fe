"""What is gathered of layers' inputs and outputs while calibration batches run through: sums, never the data itself."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from .layer import Layer


class Collector(ABC):
    """Gets the input of a layer at each call, or its output if `of` says so. One instance for each layer."""

    of = "input"

    @abstractmethod
    def update(self, layer: Layer, x: torch.Tensor) -> None:
        """Take in one call."""


class Hessian(Collector):
    """H = X^T X of the rows that the weight matrix multiplies: half the Hessian of the squared output error.

    Attributes:
        value: (row_groups, K, K), float64 or the dtype asked for; None before the first call.
        count: rows summed, M.
    """

    def __init__(self, dtype: torch.dtype = torch.float64):
        self.dtype = dtype
        self.value: torch.Tensor | None = None
        self.count = 0

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        rows = layer.rows(x)
        # The products of float32 numbers are summed in float32 within a batch, in float64 over batches.
        product = (rows.mT @ rows).to(self.dtype)
        if not product.isfinite().all():
            raise ValueError(f"calibrate: the inputs of layer {layer.name!r} are not finite")
        self.value = product if self.value is None else self.value + product
        self.count += rows.shape[1]


class AbsMax(Collector):
    """Largest magnitude of each channel: float32 (channels,) in `value`."""

    def __init__(self, of: str = "input"):
        self.of = of
        self.value: torch.Tensor | None = None

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        top = layer.channels(x.detach().float()).abs().amax(0)
        self.value = top if self.value is None else torch.maximum(self.value, top)


class Mean(Collector):
    """Mean of each channel, float64 (channels,) in `value`, over all positions."""

    def __init__(self, of: str = "output"):
        self.of = of
        self._sum: torch.Tensor | float = 0.0
        self.count = 0

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        x = layer.channels(x.detach())
        self._sum = self._sum + x.double().sum(0)
        self.count += x.shape[0]

    @property
    def value(self) -> torch.Tensor:
        return self._sum / self.count


class Moments(Mean):
    """Mean and standard deviation of each channel, float64 (channels,) in `value` and `deviation`."""

    def __init__(self, of: str = "output"):
        super().__init__(of)
        self._squares: torch.Tensor | float = 0.0

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        super().update(layer, x)
        self._squares = self._squares + layer.channels(x.detach()).double().square().sum(0)

    @property
    def deviation(self) -> torch.Tensor:
        return (self._squares / self.count - self.value.square()).clamp(min=0).sqrt()


class Samples(Collector):
    """A uniform random sample of the rows that the weight matrix multiplies: float32 (row_groups, <= limit, K).

    Each row gets a random key, and the `limit` smallest keys are kept.
    """

    def __init__(self, limit: int, generator: torch.Generator):
        self.limit, self.generator = limit, generator
        self.value: torch.Tensor | None = None
        self._keys: torch.Tensor | None = None

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        rows = layer.rows(x)
        keys = torch.rand(rows.shape[1], generator=self.generator)
        if self.value is not None:
            rows, keys = torch.cat([self.value, rows], 1), torch.cat([self._keys, keys])
        kept = keys.topk(min(self.limit, len(keys)), largest=False).indices.sort().values
        self.value, self._keys = rows[:, kept], keys[kept]
