"""bitsandbytes on the CPU: weights of 4 bits in groups of 64, float arithmetic."""

from __future__ import annotations

import copy
import logging

import torch

from ..environment import peers_are_restricted
from .base import Contender, Skipped, copy_count, rotate


class BitsAndBytes(Contender):
    """Linear4bit, the module that users put into a model."""

    library, width, arithmetic = "bitsandbytes", 4, "float32"

    def __init__(self, kind: str):
        self._kind, self.name = kind, f"bitsandbytes {kind}"

    def build(self, w, target_bytes, threads):
        if peers_are_restricted():
            raise Skipped("cannot be restricted to AVX2")
        try:
            logging.disable(logging.WARNING)  # it asks for a package that fetches kernels at run time
            import bitsandbytes
        except ImportError as reason:
            raise Skipped(f"not installed ({reason}): make bench-peers") from None
        finally:
            logging.disable(logging.NOTSET)
        n, k = w.shape
        layer = bitsandbytes.nn.Linear4bit(k, n, bias=False, compute_dtype=torch.float32, quant_type=self._kind)
        layer.weight = bitsandbytes.nn.Params4bit(w.clone(), requires_grad=False, quant_type=self._kind)
        first = layer.to("cpu").eval()
        state = first.weight.quant_state
        if state is None:
            raise Skipped("Linear4bit did not quantize on the CPU")
        self.weight_bytes = first.weight.numel() * first.weight.element_size() + 4 * state.absmax.numel()
        self.layers = [first, *(copy.deepcopy(first) for _ in range(copy_count(target_bytes, self.weight_bytes) - 1))]

    def work(self, x):
        return rotate(lambda layer: layer(x), self.layers)

    def output(self, x):
        return self.layers[0](x)


def contenders() -> list[Contender]:
    return [BitsAndBytes("nf4")]
