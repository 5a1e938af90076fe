"""Cross-layer equalization: the channels between two layers get ranges of weights alike on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .graph import Graph, Node, sources
from .recipe import Step, register
from .rescale import ChannelReLU6, can_scale_outputs, input_channels, scale_inputs, scale_outputs
from .run import Run


@register
@dataclass(frozen=True)
class Equalize(Step):
    """Scale the channels between two linear layers or convolutions so that their largest weights meet halfway.

    Between the two there may be ReLU, pooling and the like; nn.ReLU6 gets a cap for each channel. Fold batch norms
    first. Float outputs stay as they are, but for rounding.

    Attributes:
        rounds: times all pairs are gone through, or fewer where nothing changes any more.
    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1,
        equations 10 and 11. The caps replace its step from ReLU6 to ReLU, which changes outputs.
    """

    name = "equalize"
    changes = "structure"

    rounds: int = 20

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError(f"equalize: rounds={self.rounds} must be at least 1")

    def apply(self, run: Run) -> None:
        run.float_only(self)
        pairs = find_pairs(run)
        for _ in range(self.rounds):
            changes = [_equalize(path, run.model) for path in pairs]
            if max(changes, default=0) < 1e-3:
                return


def find_pairs(run: Run) -> list[list[Node]]:
    """Paths [first layer, ..., second layer]; both are selected, called once, and share their weights with no other."""
    graph = Graph(run)
    selected = {id(layer.float) for layer in run.layers}
    parameters = [id(p) for m in run.model.modules() for p in m._parameters.values() if p is not None]

    def free(module: nn.Module | None) -> bool:
        own = [p for p in module._parameters.values() if p is not None] if module is not None else []
        return (
            id(module) in selected and graph.of(module) is not None and all(parameters.count(id(p)) == 1 for p in own)
        )

    pairs = []
    for layer in run.layers:
        node = graph.of(layer.float)
        for path in sources([node], caps=True) if node is not None else ():
            first = path[0].module
            once = all(graph.of(node.module) for node in path if isinstance(node.module, nn.ReLU6))
            fits = can_scale_outputs(first, input_channels(layer.float))
            if once and fits and free(layer.float) and free(first):
                pairs.append(path)
                break
    return pairs


def _equalize(path: list[Node], model: nn.Module) -> float:
    """Equalize one pair; the largest change of a channel's factor."""
    first, second = path[0].module, path[-1].module
    r1 = first.weight.detach().abs().flatten(1).amax(1).double()
    groups = getattr(second, "groups", 1)
    w = second.weight.detach().abs()
    r2 = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1).amax((1, 3)).flatten().double()
    factor = torch.where((r1 > 0) & (r2 > 0), (r2 / r1).sqrt(), 1.0)
    rescale_between(path, factor, model)
    return (factor - 1).abs().max().item()


def rescale_between(path: list[Node], factor: torch.Tensor, model: nn.Module) -> None:
    """Multiply what the first layer of the path puts out by factor, float64 (channels,), and undo it in the last."""
    scale_outputs(path[0].module, factor)
    scale_inputs(path[-1].module, 1 / factor)
    for node in path[1:-1]:
        if isinstance(node.module, nn.ReLU6):
            node.module = _replace(model, node.module, ChannelReLU6(6 * factor.float()))
        elif isinstance(node.module, ChannelReLU6):
            node.module.cap.mul_(factor.float())


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new
    return new
