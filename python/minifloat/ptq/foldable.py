"""Groups of layers whose input can be scaled by folding the scale into what makes it.

The graph finds norms and layers before a group, also through ReLU and products. What it cannot see through, such as
attention between the values' layer and the output layer, is tried out: with factors that are powers of two, a fold that
is valid leaves the model's outputs as they were to the bit, or nearly so where sums are taken in another order.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from .layer import Layer
from .rescale import can_scale_outputs, input_channels, scale_inputs, scale_outputs
from .run import Run
from .sensitivity import tensor_of
from .smoothquant import find_groups

NEAREST = 2  # linear layers before another that are tried, the nearest first
ROUNDING = 1e-6  # relative to the largest output


@dataclass(frozen=True)
class Fold:
    """Layers that read the same input, and the module that can take in a factor for each of its channels."""

    layers: tuple[Layer, ...]
    producer: nn.Module

    @property
    def channels(self) -> int:
        return input_channels(self.layers[0].float)

    def scale(self, s: torch.Tensor) -> None:
        """Multiply the layers' weights by s (channels,), and divide the producer's outputs by it."""
        scale_outputs(self.producer, 1 / s.double())
        for layer in self.layers:
            scale_inputs(layer.float, s)


def find_folds(run: Run) -> list[Fold]:
    """The folds of the float model, in the order of their layers' calls."""
    with run.as_float():
        folds = [Fold(tuple(layers), path[0].module) for path, layers in find_groups(run)]
        taken = {layer for fold in folds for layer in fold.layers}
        reference = tensor_of(run.forward(run.batches[0]))
        for layer, earlier in _linears_before(run).items():
            if layer not in taken:
                tried = (Fold((layer,), m) for m in earlier if can_scale_outputs(m, layer.float.in_features))
                folds += [fold for fold in tried if _is_exact(run, fold, reference)][:1]
    return sorted(folds, key=lambda fold: fold.layers[0].order)


def _linears_before(run: Run) -> dict[Layer, list[nn.Module]]:
    """For each linear layer the linear layers that ended last before its first call, the last one first."""
    ended: list[nn.Module] = []
    before: dict[Layer, list[nn.Module]] = {}
    linears = [layer for layer in run.layers if layer.kind == "linear"]
    with ExitStack() as hooks:
        for layer in linears:

            def hook(module, args, layer=layer):
                width = layer.float.in_features
                fitting = [m for m in reversed(ended) if m.out_features == width and m is not module]
                before.setdefault(layer, fitting[:NEAREST])

            hooks.callback(layer.float.register_forward_pre_hook(hook).remove)
            hooks.callback(layer.float.register_forward_hook(lambda m, args, output: ended.append(m)).remove)
        run.forward(run.batches[0])
    return before


def _is_exact(run: Run, fold: Fold, reference: torch.Tensor) -> bool:
    """Whether folding changes no output of the first batch. The model is afterwards as it was."""
    parameters = [*fold.producer.parameters(), *(layer.float.weight for layer in fold.layers)]
    values = [p.detach().clone() for p in parameters]
    try:
        fold.scale(torch.exp2(torch.arange(fold.channels) % 3 - 1.0))
        delta = (tensor_of(run.forward(run.batches[0])) - reference).abs().max()
        return bool(delta <= ROUNDING * reference.abs().max())
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, values, strict=True):
                p.copy_(value)
