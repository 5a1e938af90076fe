"""QLinear: nn.Linear with a quantized weight."""

from __future__ import annotations

import torch
from torch import nn

from .. import ops  # noqa: F401 - registers torch.ops.minifloat.linear
from ..formats import QuantSpec
from ..qtensor import QTensor
from .prepared import PreparedWeight
from .qmodule import QModule, check_activation
from .static import pinned

_linear = torch.ops.minifloat.linear.default


class QLinear(QModule):
    """y = x @ w.T + bias with w, and x if there is an activation spec, in 1 to 8 bits. Called like nn.Linear.

    Gradients flow to x and to the bias. See QModule for what it holds.

    Attributes:
        in_features, out_features: K and N.
    """

    float_type = nn.Linear

    def __init__(self, q: QTensor, bias: torch.Tensor | None = None, activation: str | QuantSpec | None = None):
        self._init_from(PreparedWeight(q, check_activation(activation, q.shape[1])), bias)

    def _init_from(self, prepared: PreparedWeight, bias: torch.Tensor | None) -> None:
        super()._init_from(prepared, bias)
        self.out_features, self.in_features = prepared.shape

    @classmethod
    def from_qtensor(
        cls, q: QTensor, bias: torch.Tensor | None = None, activation: str | QuantSpec | None = None
    ) -> QLinear:
        """A layer with the weight q, as post-training methods make it. A bias that is a Parameter is taken over."""
        return cls(q, bias, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift = self._buffers["input_shift"]
        return self._product(x) if shift is None else self._product(x.float() - shift).to(x.dtype)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        ends = self._buffers["input_range"]
        if ends is not None:
            rows = pinned(x.reshape(-1, x.shape[-1]), ends)
            y = _linear(rows, self._buffers["layout"], self.plan, self._parameters["bias"], self.out_features)
            return y[:-2].to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        # Straight from the dictionaries: nn.Module.__getattr__ costs more than the rest of this call.
        return _linear(x, self._buffers["layout"], self.plan, self._parameters["bias"], self.out_features)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"{self._spec_repr()}"
        )
