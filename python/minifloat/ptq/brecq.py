"""BRECQ: learn the rounding of all layers of a block at once, so that the block's output is as near as can be.

Source: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021,
with the plain squared error in place of the one weighted by the Fisher information.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.func import functional_call

from ..formats import QuantSpec
from ..nn.progress import track
from ..qtensor import QTensor, quantize
from .adaround import Schedule, SoftRounding, input_gram, learn_rounding
from .blocks import Block, find_blocks, first_of, module_of
from .layer import Layer
from .recipe import Step, register
from .run import Run


@register
@dataclass(frozen=True)
class BRECQ(Step):
    """Learn rounding block by block, each on what the quantized blocks before it put out.

    The target is the float model's output of the block. Layers that are quantized already start from what they are,
    others from rounding to nearest. A block is left at its start unless learning lowers its error, measured with the
    packed kernels, both on all calibration batches and on those it did not learn from; so no block's error rises.

    Attributes:
        blocks: globs over the names of blocks (elements of nn.Sequential and nn.ModuleList, and layers outside of
            them); the layers of other blocks stay as they are, or are rounded to nearest.
        steps: gradient steps for a block, one batch each. rate: of Adam. regularization: see Schedule.
        holdout: part of the batches, at their end, that is not learned from; at least one batch if there are several.
    """

    name = "brecq"

    blocks: tuple = ("*",)
    steps: int = 500
    rate: float = 0.02
    regularization: float = 1.0
    holdout: float = 0.25

    def __post_init__(self):
        self._schedule()
        if not 0 <= self.holdout < 1:
            raise ValueError(f"brecq: holdout={self.holdout} is a part of the batches: from 0 to below 1")

    def _schedule(self) -> Schedule:
        return Schedule(self.steps, self.rate, self.regularization)

    def apply(self, run: Run) -> None:
        globs = (self.blocks,) if isinstance(self.blocks, str) else self.blocks
        with run.as_float():
            names = [block.name for block in find_blocks(run.model, run.layers)]
        wanted = {name for name in names if any(fnmatchcase(name, glob) for glob in globs)}
        if not wanted:
            raise ValueError(f"brecq: {', '.join(globs)} matches no block; there are {', '.join(names)}")
        for block in run.sequence(targets=True):
            before = {layer: layer.quantized for layer in block.layers}
            if all([run.restored(layer) for layer in block.layers]):  # a list: every layer is restored
                continue
            for layer, module in before.items():  # half a block is learned again, from where it started
                layer.quantized = module
                layer.put(module or layer.float)
            start = {layer: layer.start(self) for layer in block.layers}
            chosen = self._learned(run, block, start) if block.name in wanted else start
            for layer, q in chosen.items():
                run.set_weight(layer, q)

    def _learned(self, run: Run, block: Block, start: dict[Layer, QTensor]) -> dict[Layer, QTensor]:
        """What learning made of the block, or the start."""
        seen = len(block.inputs)
        if seen > 1 and self.holdout:
            seen -= min(max(1, int(self.holdout * seen)), seen - 1)
        if len(block.layers) > 1:
            found = reconstruct(run, block, start, self._schedule(), seen)
        else:
            found = learn_alone(run, block, start, self._schedule(), seen)
        after, before = (block_errors(run, block, weights) for weights in (found, start))
        unseen = slice(seen if seen < len(before) else 0, None)
        return found if sum(after) < sum(before) and sum(after[unseen]) < sum(before[unseen]) else start


def learn_alone(
    run: Run, block: Block, start: dict[Layer, QTensor], schedule: Schedule, seen: int
) -> dict[Layer, QTensor]:
    """As reconstruct, for a block of one layer, whose error the gram of its inputs gives in full: AdaRound."""
    all_inputs = block.inputs
    block.inputs = all_inputs[:seen]
    try:
        return {layer: learn_rounding(layer.matrix, q, input_gram(run, layer), schedule) for layer, q in start.items()}
    finally:
        block.inputs = all_inputs


def reconstruct(
    run: Run, block: Block, start: dict[Layer, QTensor], schedule: Schedule, seen: int
) -> dict[Layer, QTensor]:
    """The block's weights with learned rounding.

    Args:
        start: what to start from; the scales stay. seen: batches to learn from, the first ones.
    """
    soft = {layer: SoftRounding(layer.matrix, q) for layer, q in start.items()}
    rows = sum(q.shape[0] for q in start.values())
    error = sum(block_errors(run, block, start)[:seen]) / seen
    weight = rows / max(error, torch.finfo(torch.float32).tiny)
    adam = torch.optim.Adam([s.v for s in soft.values()], lr=schedule.rate)
    with run.as_float(), ExitStack() as hooks, torch.enable_grad():
        module = module_of(block)
        names = {id(m): f"{name}." if name else "" for name, m in module.named_modules()}
        for layer in soft:
            hooks.callback(layer.float.register_forward_pre_hook(_rounds_input(layer)).remove)
        for step in track(range(schedule.steps), f"learning {block.name}"):
            i = step % seen
            values, penalty = {}, 0.0
            for layer, s in soft.items():
                h = s.h()
                penalty = penalty + schedule.penalty(step, h)
                prefix = names[id(layer.float)]
                values[f"{prefix}weight"] = _as_weight(layer, s.weight(h))
                if layer.bias is not None:
                    values[f"{prefix}bias"] = layer.bias
            args, kwargs = block.inputs[i]
            output = first_of(functional_call(module, values, args, kwargs))
            loss = weight * (output - first_of(block.targets[i])).square().mean() + penalty
            adam.zero_grad()
            loss.backward(inputs=[s.v for s in soft.values()])
            adam.step()
    return {layer: s.hardened() for layer, s in soft.items()}


def _as_weight(layer: Layer, w: torch.Tensor) -> torch.Tensor:
    """A matrix (N, K) as the float module's weight, with the columns that are kept in float."""
    if layer.outliers is not None:
        columns, dtype = layer.outliers
        w = w.index_copy(1, columns, layer.float.weight.detach()[:, columns].to(dtype).float())
    return w.reshape(layer.float.weight.shape).to(layer.float.weight.dtype)


@torch.no_grad()
def block_errors(run: Run, block: Block, weights: dict[Layer, QTensor]) -> list[float]:
    """Mean squared error of the block's outputs with these weights, by the packed kernels, for each batch."""
    errors = []
    with run.showing({layer: layer.make(q) for layer, q in weights.items()}):
        module = module_of(block)
        for (args, kwargs), target in zip(block.inputs, block.targets, strict=True):
            delta = first_of(module(*args, **kwargs)) - first_of(target)
            errors.append(delta.double().square().mean().item())
    return errors


def _rounds_input(layer: Layer):
    """A forward pre-hook: x as the layer's activation spec rounds it, with the gradient of x."""

    def hook(module: nn.Module, args: tuple):
        if layer.activation is None:
            return None
        x = args[0] if layer.input_shift is None else args[0] - layer.per_channel(layer.input_shift)
        return (x + (_rounded_around_outliers(layer, x.detach()) - x).detach(), *args[1:])

    return hook


def rounded_input(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """x as the layer rounds it. A convolution rounds each patch; here it is each image, with one scale for it."""
    return _rounded_around_outliers(layer, layer.shifted(x))


def _rounded_around_outliers(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    if layer.outliers is not None:
        columns = layer.outliers[0]
        return _rounded(layer, x.index_fill(-1, columns, 0)).index_copy(-1, columns, x[..., columns])
    return _rounded(layer, x)


def _rounded(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    if layer.input_range is not None:
        ends = torch.tensor(layer.input_range)
        x = x.clamp(*layer.input_range)
        pinned = quantize(torch.cat([x.flatten(), ends])[None], QuantSpec(layer.activation.format, "tensor"))
        return pinned.dequantize()[0, :-2].reshape(x.shape)
    if layer.kind == "linear":
        return quantize(x.reshape(-1, x.shape[-1]), layer.activation).dequantize().reshape(x.shape)
    rows = x.reshape(1 if layer.activation.granularity == "tensor" else x.shape[0], -1)
    return quantize(rows, QuantSpec(layer.activation.format, "row")).dequantize().reshape(x.shape)
