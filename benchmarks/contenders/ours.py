"""minifloat itself, through the call that users make: QLinear's forward."""

from __future__ import annotations

import copy
from functools import partial

import torch

from ..cases import split_format
from .base import Contender, copy_count, rotate

HUGE_PAGE = 2**21


class Ours(Contender):
    """QLinear with a weight spec and an activation spec; quantizing x is part of the call."""

    library = "minifloat"

    def __init__(self, text: str):
        from minifloat.formats import QuantSpec

        weight, self.activation = split_format(text)
        self.spec = QuantSpec.parse(weight)
        self.width = self.spec.format.bits
        self.arithmetic = "float32" if self.activation is None else "int8"
        self.name = f"ours {weight}" + {"int8-row": "", None: " float"}.get(self.activation, f" x {self.activation}")

    def build(self, w, target_bytes, threads):
        import minifloat as mf

        q = mf.quantize(w, self.spec)

        def layer():
            return mf.nn.QLinear.from_qtensor(q, None, self.activation).eval()

        first = layer()
        self.weight_bytes = first.layout.numel()
        # Large layouts are packed anew for every copy: how the library allocates them is part of the measurement.
        again = layer if self.weight_bytes >= HUGE_PAGE else partial(copy.deepcopy, first)
        self.layers = [first, *(again() for _ in range(copy_count(target_bytes, self.weight_bytes) - 1))]

    def work(self, x):
        return rotate(lambda layer: layer(x), self.layers)

    def output(self, x):
        return self.layers[0](x)


def contenders(formats: list[str]) -> list[Ours]:
    return [Ours(text) for text in formats]


def select_isa(name: str) -> str:
    """Let our kernels use this instruction set only; returns the one in use."""
    import minifloat as mf

    if name:
        mf.ops.select_isa(name)
    return mf.ops.isa()


def set_threads(threads: int) -> None:
    """torch's threads are also ours."""
    torch.set_num_threads(threads)
