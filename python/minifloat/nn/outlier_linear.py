"""OutlierLinear: a QLinear in which a few input dimensions stay in 16 or 32 bits."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..formats import QuantSpec
from ..qtensor import QTensor
from .prepared import PreparedWeight
from .qlinear import QLinear


class OutlierLinear(QLinear):
    """y = x' @ w.T + x[:, columns] @ outlier_weight.T + bias, where x' is x with those columns set to 0.

    The first product is QLinear's, to the bit; the second is a float one. The columns are fixed, so that a result does
    not depend on the other rows of x; the paper looks for them anew in each x.

    Attributes:
        outlier_columns: int64, (C,), ascending.
        outlier_weight: (N, C), float16 or float32; used as x's dtype. Dtype conversions of the module leave it.
    Source: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", section 3.2.
    """

    extras = (*QLinear.extras, "outlier_columns", "outlier_weight")

    @classmethod
    def from_qtensor(
        cls,
        q: QTensor,
        bias: torch.Tensor | None = None,
        activation: str | QuantSpec | None = None,
        columns: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
    ) -> OutlierLinear:
        """A layer with the low-bit weight q, (N, K), and the float weights (N, C) of some columns (C,).

        Raises:
            ValueError: the columns are not ascending and below K, or the weights do not fit them.
        """
        layer = cls(q, bias, activation)
        layer.set_outliers(columns, weight)
        return layer

    def _init_from(self, prepared: PreparedWeight, bias: torch.Tensor | None) -> None:
        super()._init_from(prepared, bias)
        self.register_buffer("outlier_columns", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("outlier_weight", torch.zeros(prepared.shape[0], 0))

    def set_outliers(self, columns: torch.Tensor, weight: torch.Tensor) -> None:
        """Keep these columns (C,) in float, with these weights (N, C)."""
        extras = {"outlier_columns": columns, "outlier_weight": weight.detach()}
        for problem in self._extra_problems(extras, self.prepared.shape, self.activation):
            raise ValueError(problem)
        self.outlier_columns, self.outlier_weight = columns, extras["outlier_weight"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = self.outlier_columns
        low = super().forward(x.index_fill(-1, columns, 0))
        return low + F.linear(x.index_select(-1, columns), self.outlier_weight.to(x.dtype))

    @property
    def weight(self) -> torch.Tensor:
        return self.qtensor.dequantize().index_copy(1, self.outlier_columns, self.outlier_weight.float())

    @property
    def bits_per_value(self) -> float:
        n, k = self.prepared.shape
        return self.prepared.bits_per_value + 8 * self.outlier_weight.nbytes / max(n * k, 1)

    @classmethod
    def _extra_problems(cls, tensors, shape, activation) -> list[str]:
        problems = super()._extra_problems(tensors, shape, activation)
        columns, weight = tensors.get("outlier_columns"), tensors.get("outlier_weight")
        if columns is None or weight is None:
            return [*problems, "outlier_columns and outlier_weight are missing"]
        if columns.dtype != torch.int64 or columns.dim() != 1:
            return [*problems, f"outlier_columns are {columns.dtype} {tuple(columns.shape)}, expected int64 (C,)"]
        if (columns.diff() <= 0).any() or (columns < 0).any() or (columns >= shape[1]).any():
            problems.append(f"outlier_columns {columns.tolist()} must ascend and be below K={shape[1]}")
        if tuple(weight.shape) != (shape[0], len(columns)) or not weight.is_floating_point():
            expected = f"floats ({shape[0]}, {len(columns)})"
            problems.append(f"outlier_weight is {weight.dtype} {tuple(weight.shape)}, expected {expected}")
        return problems

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {len(self.outlier_columns)} outlier columns in {self.outlier_weight.dtype}"


def replacing(linear: nn.Linear, prepared: PreparedWeight, bias, columns: torch.Tensor, weight: torch.Tensor):
    """The OutlierLinear that takes linear's place in a model: with its mode and its hooks."""
    layer = OutlierLinear._replacing(linear, prepared, bias)
    layer.set_outliers(columns, weight)
    return layer
