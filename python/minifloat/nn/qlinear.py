"""QLinear: nn.Linear with a quantized weight."""

from __future__ import annotations

import torch
from torch import nn

from .. import _C, ops  # noqa: F401 - ops registers torch.ops.minifloat.linear
from ..formats import QuantSpec
from ..qtensor import QTensor
from .prepared import PreparedWeight
from .qmodule import QModule, check_activation
from .static import pinned

_linear = torch.ops.minifloat.linear.default
_compiling = torch.compiler.is_dynamo_compiling


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
        shift, ends = self._buffers["input_shift"], self._buffers["input_range"]
        if shift is not None or ends is not None:
            return self._static(x, shift, ends)
        # Straight from the dictionaries: nn.Module.__getattr__ costs more than the rest of this call.
        linear = _linear if _compiling() else _C.linear  # the same op, see csrc/python_linear.cpp
        return linear(x, self._buffers["layout"], self.plan, self._parameters["bias"], self.out_features)

    def _static(self, x: torch.Tensor, shift: torch.Tensor | None, ends: torch.Tensor | None) -> torch.Tensor:
        """The output where what is subtracted from x, or its range, was measured beforehand."""
        rows = x.reshape(-1, x.shape[-1]).float()
        rows = rows if shift is None else rows - shift
        rows = rows if ends is None else pinned(rows, ends)
        y = _linear(rows, self._buffers["layout"], self.plan, self._parameters["bias"], self.out_features)
        y = y if ends is None else y[:-2]
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"{self._spec_repr()}"
        )
