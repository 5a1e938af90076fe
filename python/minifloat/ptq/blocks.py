"""Blocks: the parts of a model that are quantized one after the other, each on the outputs of those before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..nn.progress import track
from .layer import Layer

if TYPE_CHECKING:
    from .run import Run

CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass
class Block:
    """A module with selected layers in it.

    Attributes:
        name: qualified name.
        layers: in the order of their calls.
        inputs: (args, kwargs) of its call for each batch, in the model whose earlier blocks are as they are now.
        targets: its output for each batch in the float model, if asked for; else empty.
    """

    name: str
    module: nn.Module
    layers: list[Layer]
    inputs: list[tuple[tuple, dict]] = field(default_factory=list)
    targets: list = field(default_factory=list)


def find_blocks(model: nn.Module, layers: list[Layer]) -> list[Block]:
    """Blocks in the order of their calls: elements of the model's nn.Sequential and nn.ModuleList, and single layers.

    An element that holds an nn.ModuleList of its own is taken apart; one that holds an nn.Sequential is not.
    """
    by_module = {id(layer.float): layer for layer in layers}
    blocks: list[Block] = []

    def visit(name: str, module: nn.Module, element: bool) -> None:
        inside = [by_module[id(m)] for m in module.modules() if id(m) in by_module]
        if not inside:
            return
        stack = any(isinstance(m, nn.ModuleList) for m in module.modules())
        if id(module) in by_module or (element and not stack and not isinstance(module, CONTAINERS)):
            blocks.append(Block(name, module, sorted(inside, key=lambda layer: layer.order)))
            return
        for child_name, child in module.named_children():
            below = f"{name}.{child_name}" if name else child_name
            visit(below, child, isinstance(module, CONTAINERS))

    visit("", model, False)
    return sorted(blocks, key=lambda block: block.layers[0].order)


class Stream:
    """The inputs of one block after the other, for all batches.

    Where a block's first argument is the output of the block before, and its other arguments are the same for both, its
    inputs are computed from that block's; elsewhere the model runs from its beginning.
    """

    def __init__(self, run: Run, blocks: list[Block], floats: bool):
        self.run, self.blocks, self.floats = run, blocks, floats
        with run.as_float():
            self.chained = _chained(run, blocks)

    def inputs(self, i: int, before: list | None) -> list:
        """What block i is called with. before: (args, kwargs) of block i - 1, None if they are not known."""
        if before is None or not self.chained[i]:
            return [capture(self.run, module_of(self.blocks[i]), batch)[:2] for batch in self.run.batches]
        return [((first_of(output), *args[1:]), kwargs) for args, kwargs, output in self._through(i - 1, before)]

    def outputs(self, i: int, inputs: list) -> list:
        """What block i makes of its inputs."""
        return [output for _, _, output in self._through(i, inputs)]

    def _through(self, i: int, inputs: list) -> Iterator[tuple]:
        module = module_of(self.blocks[i])
        for args, kwargs in inputs:
            yield args, kwargs, module(*args, **kwargs)


def sequence(run: Run, targets: bool = False) -> Iterator[Block]:
    """Yield each block with its inputs, computed when the blocks before it are as the caller has left them.

    Args:
        targets: whether to compute what the float model puts out there, too.
    """
    with run.as_float():  # a step may come after one that has quantized
        blocks = find_blocks(run.model, run.layers)
    stream = Stream(run, blocks, False)
    inputs = float_inputs = None
    for i, block in enumerate(track(blocks, "quantizing blocks")):
        inputs = stream.inputs(i, inputs)
        if targets:
            with run.as_float():
                float_inputs = stream.inputs(i, float_inputs)
                block.targets = stream.outputs(i, float_inputs)
        block.inputs = inputs
        run.block = block
        try:
            yield block
        finally:
            run.block, block.inputs, block.targets = None, [], []


def stages(run: Run, block: Block) -> list[list[Layer]]:
    """The block's layers in the order of their calls, those that get the very same tensor (q, k and v) together.

    To be called within `sequence`, while that block is the current one.
    """
    seen: dict[int, list[Layer]] = {}
    alive = []  # so that no id is used twice
    handles = []
    for layer in block.layers:

        def hook(module, args, layer=layer):
            alive.append(args[0])
            if not any(layer in stage for stage in seen.values()):
                seen.setdefault(id(args[0]), []).append(layer)

        handles.append(layer.current.register_forward_pre_hook(hook))
    try:
        args, kwargs = block.inputs[0]
        module_of(block)(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.values())


def module_of(block: Block) -> nn.Module:
    """The module in the block's place now: of a block that is one layer, whatever takes that layer's place."""
    return block.layers[0].current if block.module is block.layers[0].float else block.module


def first_of(output):
    """The tensor that goes on: the output, or the first element of a tuple."""
    return output[0] if isinstance(output, tuple) else output


class _Captured(Exception):
    pass


@torch.no_grad()
def capture(run: Run, module: nn.Module, batch) -> tuple[tuple, dict, object]:
    """(args, kwargs, output) of the module's first call for a batch; the model stops there."""
    found = []

    def hook(module, args, kwargs, output):
        found.append((args, kwargs, output))
        raise _Captured

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        run.forward(batch)
    except _Captured:
        return found[0]
    finally:
        handle.remove()
    raise ValueError("calibrate: a batch does not reach a layer that the first batch reaches")


def _chained(run: Run, blocks: list[Block]) -> list[bool]:
    """Of each block, whether its call follows from that of the block before it, as seen on the first batch."""
    calls: dict[int, list] = {i: [] for i in range(len(blocks))}
    handles = []
    for i, block in enumerate(blocks):

        def hook(module, args, kwargs, output, i=i):
            calls[i].append((args, kwargs, output))

        handles.append(module_of(block).register_forward_hook(hook, with_kwargs=True))
    try:
        run.forward(run.batches[0])
    finally:
        for handle in handles:
            handle.remove()
    once = [len(calls[i]) == 1 for i in range(len(blocks))]
    return [i > 0 and once[i - 1] and once[i] and _follows(calls[i - 1][0], calls[i][0]) for i in range(len(blocks))]


def _follows(before: tuple, after: tuple) -> bool:
    (args, kwargs, output), (next_args, next_kwargs, _) = before, after
    return (
        len(args) == len(next_args) > 0
        and next_args[0] is first_of(output)
        and all(map(_same, args[1:], next_args[1:]))
        and kwargs.keys() == next_kwargs.keys()
        and all(_same(kwargs[key], next_kwargs[key]) for key in kwargs)
    )


def _same(a, b) -> bool:
    if a is b:
        return True
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and type(a) is type(b) and len(a) == len(b):
        return all(map(_same, a, b))
    return isinstance(a, (bool, int, float, str, type(None))) and a == b
