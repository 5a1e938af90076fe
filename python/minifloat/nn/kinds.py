"""The kinds of layers that can be quantized, by the names that `kinds` takes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.parameter import is_lazy

from .binary_coded_linear import BinaryCodedLinear
from .outlier_linear import OutlierLinear
from .qconv import QConv2d
from .qembedding import QEmbedding
from .qlinear import QLinear
from .qmodule import QModule

KINDS: dict[str, type[QModule]] = {"linear": QLinear, "conv2d": QConv2d, "embedding": QEmbedding}
CLASSES: dict[str, type[QModule]] = {
    made.__name__: made for made in (*KINDS.values(), OutlierLinear, BinaryCodedLinear)
}  # as files name them


def layer_types(kinds: Sequence[str]) -> tuple[type[nn.Module], ...]:
    """The float and quantized classes of these kinds.

    Raises:
        ValueError: no such kind.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kinds: {kind!r} is none of {', '.join(KINDS)}")
    return tuple(t for kind in kinds for t in (KINDS[kind].float_type, KINDS[kind]))


def kind_of(module: nn.Module) -> str | None:
    """The kind of a layer, float or quantized; None for other modules."""
    for kind, quantized in KINDS.items():
        if isinstance(module, (quantized.float_type, quantized)):
            return kind
    return None


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """(N, K) of the layer's weight as a matrix."""
    if isinstance(module, QModule):
        return module.matrix_shape
    if is_lazy(module.weight):
        return getattr(module, "out_features", 0), 0
    shape = module.weight.shape
    return shape[0], shape[1:].numel()
