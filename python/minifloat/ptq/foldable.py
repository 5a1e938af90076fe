"""Where a scale of a layer's inputs can be folded into what comes before: found by trying, not by the model's names.

If the outputs of a norm or layer are divided by s and the layers that read them multiply their columns by s, the model
computes the same, provided that all between them is linear in each channel (or a ReLU), and that nobody else reads
them. Whether that holds is tried out with scales that are powers of two, for which it then holds to the bit.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from .layer import Layer
from .run import Run
from .sensitivity import tensor_of

NEAREST = 4  # modules before a layer that are tried, the nearest first
ROUNDING = 1e-6  # relative: sums of scaled terms may be taken in another order


@dataclass(frozen=True)
class Fold:
    """Layers that read the same input, and what puts it out.

    Attributes:
        layers: linear layers, or convolutions without groups.
        channels: of their input.
        producer: a norm, linear layer or convolution whose output channels can be scaled; None: there is none.
    """

    layers: tuple[Layer, ...]
    channels: int
    producer: nn.Module | None

    @torch.no_grad()
    def scale(self, s: torch.Tensor) -> None:
        """Multiply the layers' columns by s (channels,), and divide the producer's outputs by it."""
        for layer in self.layers:
            w = layer.float.weight
            w.mul_(s.to(w.dtype).reshape(-1, *[1] * (w.dim() - 2)))
        if self.producer is not None:
            w = self.producer.weight
            w.div_(s.to(w.dtype).reshape(-1, *[1] * (w.dim() - 1)))
            if getattr(self.producer, "bias", None) is not None:
                self.producer.bias.div_(s.to(w.dtype))


def find_folds(run: Run) -> list[Fold]:
    """The layers of the float model grouped by their input, each group with its producer, in the order of calls."""
    with run.as_float():
        groups, before = _observe(run)
        reference = tensor_of(run.forward(run.batches[0]))
        folds = []
        for layers, earlier in zip(groups, before, strict=True):
            channels = layers[0].float.weight.shape[1]
            tried = [m for m in reversed(earlier) if _outputs(m) == channels][:NEAREST]
            folds.append(next((f for m in tried if _is_exact(run, f := Fold(layers, channels, m), reference)), None))
            folds[-1] = folds[-1] or Fold(layers, channels, None)
    return folds


def _outputs(module: nn.Module) -> int | None:
    """Channels that the module puts out, if its weight scales them one by one; None otherwise."""
    weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
    if not isinstance(weight, nn.Parameter) or isinstance(module, nn.Embedding):
        return None
    if weight.dim() == 1 or isinstance(module, (nn.Linear, nn.Conv2d)):
        return weight.shape[0] if bias is None or bias.shape == weight.shape[:1] else None
    return None


def _observe(run: Run) -> tuple[list[tuple[Layer, ...]], list[list[nn.Module]]]:
    """Groups of layers with the same input on the first batch; for each, the modules that ended before it, in order."""
    ended: list[nn.Module] = []
    found: dict[tuple, list[Layer]] = {}
    before: dict[tuple, list[nn.Module]] = {}
    alive = []  # a freed tensor's address could come again
    with ExitStack() as hooks:
        for module in run.model.modules():
            if _outputs(module) is not None:
                handle = module.register_forward_hook(lambda m, args, output: ended.append(m))
                hooks.callback(handle.remove)
        for layer in run.layers:
            if layer.row_groups > 1:
                continue

            def hook(module, args, layer=layer):
                x = args[0]
                alive.append(x)
                key = (x.data_ptr(), tuple(x.shape), tuple(x.stride()))
                if layer not in found.setdefault(key, []):
                    found[key].append(layer)
                before.setdefault(key, list(ended))

            hooks.callback(layer.float.register_forward_pre_hook(hook).remove)
        run.forward(run.batches[0])
    once = {}  # a layer that is called with several inputs belongs to none
    for key, layers in found.items():
        for layer in layers:
            once.setdefault(layer, []).append(key)
    keys = [key for key in found if all(len(once[layer]) == 1 for layer in found[key])]
    return [tuple(found[key]) for key in keys], [before[key] for key in keys]


def _is_exact(run: Run, fold: Fold, reference: torch.Tensor) -> bool:
    """Whether scaling changes no output of the first batch."""
    if any(fold.producer is layer.float for layer in fold.layers):
        return False
    parameters = [*(layer.float.weight for layer in fold.layers), *fold.producer.parameters()]
    values = [p.detach().clone() for p in parameters]
    try:
        fold.scale(torch.exp2(torch.arange(fold.channels) % 3 - 1.0))
        delta = (tensor_of(run.forward(run.batches[0])) - reference).abs().max()
        return bool(delta <= ROUNDING * reference.abs().max())
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, values, strict=True):
                p.copy_(value)
