"""BinaryCodedLinear: nn.Linear whose weight is a sum of binary planes with scales."""

from __future__ import annotations

import torch
from torch import nn

from ..binary_coding import ITERATIONS, binary_code, binary_decode, check_binary, check_planes
from ..formats import QuantSpec
from ..qtensor import QTensor
from .prepared import PreparedWeight
from .qlinear import QLinear
from .qmodule import check_activation


class BinaryCodedLinear(QLinear):
    """y = x @ w.T + bias with w[n, k] = sum over i of alpha[i, n, k // G] * b[i, n, k], b = -1 or +1.

    The planes b are one 1-bit QTensor (N, planes * K), plane i in columns i * K to (i + 1) * K - 1, so y is QLinear's
    for x repeated `planes` times: one product, whatever the number of planes, on every backend. See
    emulator.binary_coded for the reference.

    Attributes:
        in_features, out_features: K and N.
    Source: Park et al., "LUT-GEMM" (nuQmm), section 3; Xu et al., "Alternating Multi-bit Quantization", section 3.
    """

    def __init__(
        self, q: QTensor, planes: int, bias: torch.Tensor | None = None, activation: str | QuantSpec | None = None
    ):
        check_planes(planes)
        if q.shape[1] % planes:
            raise ValueError(f"{planes} planes need a multiple of {planes} columns, but the weight is {q.shape}")
        k = q.shape[1] // planes
        check_binary(q.spec, k)
        self._init_from(PreparedWeight(q, check_activation(activation, k)), bias)
        self.in_features = k

    @classmethod
    def from_qtensor(
        cls,
        q: QTensor,
        bias: torch.Tensor | None = None,
        activation: str | QuantSpec | None = None,
        planes: int = 1,
    ) -> BinaryCodedLinear:
        """A layer with the planes q, (N, planes * K), as binary_coding.binary_code returns them."""
        return cls(q, planes, bias, activation)

    @classmethod
    def from_float(
        cls,
        layer: nn.Module,
        bits: int = 3,
        group: int | None = 128,
        scale: str = "bfloat16",
        activation: str | QuantSpec | None = None,
        iterations: int = ITERATIONS,
    ) -> BinaryCodedLinear:
        """Code the weight of an nn.Linear by alternating least squares. Its bias is taken over: the same Parameter.

        Args:
            bits: planes, 1 to 8.
            group: inputs that share the scales of their planes; None: all K.
            scale: format of the scales: "float32", "bfloat16", "e8m0" or "e4m3fn".
            iterations: rounds at most; see binary_coding.binary_code.
        Raises:
            TypeError: `layer` is not an nn.Linear.
            ValueError: K is not a multiple of the group, or the weight is not finite or has no values.
        """
        matrix = cls._float_matrix(layer)
        activation = check_activation(activation, matrix.shape[1])
        prepared = PreparedWeight(binary_code(matrix, bits, group, scale, iterations), activation)
        return cls._from_prepared(prepared, layer.bias, layer).train(layer.training)

    def _take_shape(self, like: nn.Module) -> None:
        self.in_features = like.in_features

    @property
    def planes(self) -> int:
        return self.prepared.shape[1] // self.in_features

    @property
    def nbytes(self) -> int:
        """Bytes of the planes and their scales in canonical storage."""
        n, k = self.matrix_shape
        return round(self.bits_per_value * n * k / 8)

    @property
    def weight(self) -> torch.Tensor:
        """The weight that the layer multiplies with: float32 (N, K), the sum of the planes in float64, rounded once."""
        return binary_decode(self.qtensor, self.planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, planes = self.in_features, self.planes
        if x.shape[-1] != k:
            raise ValueError(f"linear: x has K={x.shape[-1]} but the weight has K={k}")
        return super().forward(x if planes == 1 else torch.cat([x] * planes, -1))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()} in {self.planes} planes"
