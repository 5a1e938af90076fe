"""Which module feeds which: recorded while one batch runs through the model, so that any model that runs will do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .run import Run


@dataclass(eq=False)
class Node:
    """One call of a module or function.

    Attributes:
        module: what was called, or None for a function.
        function: its name; "" for modules, "output" for the end of the model.
        inputs: the calls that made its tensor arguments, None for tensors from elsewhere.
        users: the calls that take its output; the same one several times if it takes it several times.
    """

    module: nn.Module | None = None
    function: str = ""
    args: tuple = ()
    inputs: list[Node | None] = field(default_factory=list)
    users: list[Node] = field(default_factory=list)


class Graph:
    """The calls of one forward pass.

    Leaf modules are those of torch.nn without children, those of a class called ...RMSNorm, and what the run selects.
    """

    def __init__(self, run: Run):
        self.nodes: list[Node] = []
        self._makers: dict[int, Node] = {}
        self._alive: list[torch.Tensor] = []  # so that no id is used twice
        self._depth = 0
        chosen = {id(layer.float) for layer in run.layers}
        handles = []
        for module in run.model.modules():
            if id(module) in chosen or _is_leaf(module):
                handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with torch.no_grad(), _Functions(self):
                output = run.forward(run.batches[0])
        finally:
            for handle in handles:
                handle.remove()
        self.add(Node(function="output"), tree_leaves(output), None)

    def add(self, node: Node, arguments, output) -> None:
        """Record a call."""
        for tensor in tree_leaves(arguments):
            if isinstance(tensor, torch.Tensor):
                maker = self._makers.get(id(tensor))
                node.inputs.append(maker)
                if maker is not None:
                    maker.users.append(node)
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._makers[id(tensor)] = node
                self._alive.append(tensor)
        self.nodes.append(node)

    def of(self, module: nn.Module) -> Node | None:
        """The call of a module that is called exactly once."""
        calls = [node for node in self.nodes if node.module is module]
        return calls[0] if len(calls) == 1 else None

    def _enter(self, module, args, kwargs) -> None:
        self._depth += 1

    def _leave(self, module, args, kwargs, output) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.add(Node(module), (args, kwargs), output)


class _Functions(TorchFunctionMode):
    """Records the functions called outside of leaf modules."""

    def __init__(self, graph: Graph):
        super().__init__()
        self.graph = graph

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        made = any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(output))
        if made and not self.graph._depth:  # reading a shape is no use of the values
            self.graph.add(Node(function=getattr(function, "__name__", ""), args=args), (args, kwargs or {}), output)
        return output


def _is_leaf(module: nn.Module) -> bool:
    of_torch = type(module).__module__.startswith("torch.nn.") and not list(module.children())
    return (of_torch and not isinstance(module, nn.Sequential | nn.ModuleList)) or is_rms_norm(module)


def is_rms_norm(module: nn.Module) -> bool:
    """torch's, or one of a class called ...RMSNorm: normalizes, then multiplies with `weight`."""
    return type(module).__name__.endswith("RMSNorm") and getattr(module, "weight", None) is not None


HOMOGENEOUS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.Identity,
    nn.Dropout,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)
HOMOGENEOUS_FUNCTIONS = {
    *("relu", "relu_", "leaky_relu", "dropout", "contiguous", "flatten"),
    *("avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "_max_pool2d"),
}
PRODUCTS = {"mul", "__mul__", "__rmul__", "mul_"}


def sources(consumers: list[Node], caps: bool = False) -> Iterator[list[Node]]:
    """The ways back from the first input of calls: [maker, ..., consumer].

    On such a way, scaling a channel of what the maker puts out by a positive factor scales that channel of the
    consumers' input alike, and nothing else in the model.

    Args:
        consumers: all calls that take this input.
        caps: whether to go through nn.ReLU6 as well; the caller then moves its cap.
    """

    def back(maker: Node | None, path: list[Node], users: int = 1) -> Iterator[list[Node]]:
        if maker is None or len(maker.users) != users:
            return
        here = [maker, *path]
        module = maker.module
        if isinstance(module, HOMOGENEOUS) or (caps and isinstance(module, nn.ReLU6)):
            yield from back(maker.inputs[0], here)
        elif module is not None:
            yield here
        elif maker.function in HOMOGENEOUS_FUNCTIONS or _is_spatial_mean(maker):
            yield from back(maker.inputs[0] if maker.inputs else None, here)
        elif maker.function in PRODUCTS:
            for other in maker.inputs:
                yield from back(other, here)

    first = consumers[0].inputs[0] if consumers[0].inputs else None
    if first is not None and len(first.users) == len(consumers) and set(first.users) == set(consumers):
        yield from back(first, [consumers[0]], len(consumers))


def _is_spatial_mean(node: Node) -> bool:
    dims = node.args[1:]
    dims = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return node.function == "mean" and sorted(dims) in ([2, 3], [-2, -1])
