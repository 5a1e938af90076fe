"""What quantize_ did to each layer."""

from __future__ import annotations

from dataclasses import dataclass

from ..formats import QuantSpec


@dataclass(frozen=True)
class LayerReport:
    """One nn.Linear of the model.

    Attributes:
        name: qualified name; the first one, if the module occurs several times.
        shape: (N, K).
        weight, activation: the specs; both None if the layer is float.
        bits_per_value: of the weight as it is now, scales included.
        reason: why quantize_ left the layer as it was; empty if it did not.
    """

    name: str
    shape: tuple[int, int]
    weight: QuantSpec | None
    activation: QuantSpec | None
    bits_per_value: float
    reason: str = ""

    @property
    def quantized(self) -> bool:
        return self.weight is not None

    def __str__(self) -> str:
        n, k = self.shape
        specs = f"{self.weight} x {self.activation or 'float'}" if self.quantized else "float"
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.name} ({n}, {k}): {specs}, {self.bits_per_value:.4g} bits{reason}"
