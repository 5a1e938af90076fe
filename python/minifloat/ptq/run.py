"""The context that steps work on: the model, the calibration batches and the selected layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import torch
from torch import nn

from ..nn.binary_coded_linear import BinaryCodedLinear
from ..nn.fused import call_layers
from ..nn.progress import track
from ..qtensor import QTensor
from .blocks import Block, module_of, sequence
from .collect import Collector
from .layer import Layer
from .store import Store

KEPT = ("weight", "activation", "rule", "input_range", "input_shift", "outliers", "bias", "quantized")


class _Stop(Exception):
    """Raised within a forward pass once nothing further is needed of it."""


class Run:
    """What a step's `apply` gets.

    Attributes:
        model: float modules, and quantized ones where a step has made them. In eval mode.
        batches: the calibration batches.
        layers: the selected layers in the order in which the model calls them. Embeddings are not among them.
        calls: how often the model calls each of them on the first batch.
        embeddings: the selected nn.Embedding layers, rounded to nearest at the end.
        block: the one that `sequence` has yielded last, if any.
        generator: for whatever is random; seeded alike at the start of every step.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: list,
        layers: list[Layer],
        forward: Callable,
        seed: int = 0,
        store: Store | None = None,
    ):
        self.model, self.batches = model, batches
        self._forward, self._seed, self._store = forward, seed, store
        self.generator = torch.Generator()
        self.block: Block | None = None
        self._step = 0
        self.embeddings = [layer for layer in layers if layer.kind == "embedding"]
        self.layers = self._in_order([layer for layer in layers if layer.kind != "embedding"])

    # --- data through the model ---

    @torch.no_grad()
    def forward(self, batch):
        """The model's output for a batch."""
        return self._forward(self.model, batch)

    @torch.no_grad()
    def collect(self, collectors: Mapping[Layer, Collector | Iterable[Collector]], description: str = "") -> None:
        """Run all batches through the model as it is now, and let the collectors see their layers' inputs or outputs.

        A pass ends as soon as every one of these layers was called as often as in the first batch. Within `sequence`,
        where all layers are in the current block, only that runs.
        """
        calls: dict[Layer, int] = {}

        def note(layer: Layer):
            calls[layer] = calls.get(layer, 0) + 1
            if all(calls.get(other, 0) >= self.calls[other] for other in collectors):
                raise _Stop

        with ExitStack() as hooks:
            for layer, given in collectors.items():
                several = [given] if isinstance(given, Collector) else list(given)

                def hook(module, args, output, layer=layer, several=several):
                    for collector in several:
                        collector.update(layer, args[0] if collector.of == "input" else output)
                    note(layer)

                hooks.enter_context(_removed(layer.current.register_forward_hook(hook)))
            for once in self.track(self._passes(collectors), description or "collecting"):
                calls.clear()
                with suppress(_Stop):
                    once()

    def _passes(self, layers: Iterable[Layer]) -> list[Callable]:
        """What to call for each batch so that these layers are called."""
        if self.block is None or not set(layers) <= set(self.block.layers):
            return [partial(self.forward, batch) for batch in self.batches]
        module = module_of(self.block)
        return [partial(module, *args, **kwargs) for args, kwargs in self.block.inputs]

    def sequence(self, targets: bool = False) -> Iterator[Block]:
        """The blocks in the order of their calls, each with its inputs as the blocks before it leave them now.

        Args:
            targets: give each block also its outputs in the float model.
        """
        return sequence(self, targets)

    @contextmanager
    def as_float(self) -> Iterator[None]:
        """Within it every selected layer is its float module."""
        with self._showing([(layer, layer.float) for layer in self.layers]):
            yield

    @contextmanager
    def showing(self, modules: Mapping[Layer, nn.Module]) -> Iterator[None]:
        """Within it these modules are in the layers' places."""
        with self._showing(list(modules.items())):
            yield

    @contextmanager
    def _showing(self, modules) -> Iterator[None]:
        before = [(layer, layer.current) for layer, _ in modules]
        for layer, module in modules:
            layer.put(module)
        try:
            yield
        finally:
            for layer, module in before:
                layer.put(module)

    # --- results ---

    def set_weight(self, layer: Layer, q: QTensor, bias: torch.Tensor | None = None) -> None:
        """Quantize the layer with the weight q, and keep that for a run that continues this one.

        Args:
            bias: float (N,), instead of the float module's.
        """
        if isinstance(layer.quantized, BinaryCodedLinear):
            raise ValueError(f"recipe: binary_coded has quantized {layer.name!r} already, and this step would undo it")
        self.set_module(layer, layer.make(q, bias))

    def set_module(self, layer: Layer, module: nn.Module) -> None:
        """Put a quantized module in the layer's place, and keep it."""
        layer.quantized = module
        layer.put(module)
        call_layers(self.model)
        self.keep(layer)

    def keep(self, layer: Layer) -> None:
        """Store how the layer is quantized now: this step need not come back to it."""
        if self._store:
            self._store.save(self._step, f"layer {layer.name}", _kept(layer))

    def restored(self, layer: Layer) -> bool:
        """Whether this step had finished the layer when the run was interrupted; the layer is then as it was."""
        kept = self._store.load(self._step, f"layer {layer.name}") if self._store else None
        if kept is None:
            return False
        self._restore(layer, kept)
        return True

    def _restore(self, layer: Layer, kept: dict) -> None:
        for name, value in kept.items():
            setattr(layer, name, value)
        if layer.quantized is not None:
            layer.quantized._take_hooks(layer.float)
            layer.put(layer.quantized)
            call_layers(self.model)

    def float_only(self, step) -> None:
        """Raise unless all layers are still float: what steps ask that change these, or how they are quantized."""
        done = [layer.name for layer in self.layers if layer.quantized is not None]
        if done:
            raise ValueError(
                f"recipe: {step.name} works on float layers, so it comes before what quantizes {done[0]!r}"
            )

    def quantized_only(self, step) -> None:
        """Raise unless all layers are quantized: what steps ask that correct quantized layers."""
        rest = [layer.name for layer in self.layers if layer.quantized is None]
        if rest:
            raise ValueError(f"recipe: {step.name} comes after the step that quantizes; {rest[0]!r} is still float")

    def quantize_rest(self) -> None:
        """Round the layers that are still float to nearest."""
        rest = [layer for layer in (*self.layers, *self.embeddings) if layer.quantized is None]
        for layer in self.track(rest, "rounding"):
            layer.quantized = layer.make(layer.nearest())
            layer.put(layer.quantized)
        call_layers(self.model)

    @staticmethod
    def track(items: Iterable, description: str) -> Iterator:
        """The items, with a progress bar on a terminal if they take long."""
        return track(items, description)

    # --- steps ---

    def apply(self, step, number: int) -> None:
        """Apply a step, or what an interrupted run has kept of it."""
        self._step = number
        self.generator.manual_seed(self._seed)
        self._check_order(step)
        done = self._store.load(number, "finished") if self._store else None
        if done is not None and step.changes != "structure":
            for layer in (*self.layers, *self.embeddings):
                self._restore(layer, done["layers"][layer.name])
            if done["floats"] is not None:
                with self.as_float():
                    self.model.load_state_dict(done["floats"])
            return
        step.apply(self)
        if self._store and step.changes != "structure":
            layers = {layer.name: _kept(layer) for layer in (*self.layers, *self.embeddings)}
            floats = self.model.state_dict() if step.changes == "floats" else None
            self._store.save(number, "finished", {"layers": layers, "floats": floats})

    def _check_order(self, step) -> None:
        """Raise if the step changes what layers get after something was chosen for their inputs as they were."""
        shifted = [layer.name for layer in self.layers if layer.input_shift is not None]
        if shifted and step.changes != "layers":
            raise ValueError(
                f"recipe: {step.name} changes inputs, so it comes before what shifts those of {shifted[0]!r}"
            )

    def _in_order(self, layers: list[Layer]) -> list[Layer]:
        """The layers in the order of their first call on the first batch."""
        self.calls = dict.fromkeys(layers, 0)
        order: list[Layer] = []
        with ExitStack() as hooks:
            for layer in layers:

                def hook(module, args, layer=layer):
                    self.calls[layer] += 1
                    if layer not in order:
                        order.append(layer)

                hooks.enter_context(_removed(layer.float.register_forward_pre_hook(hook)))
            self.forward(self.batches[0])
        for number, layer in enumerate(order):
            layer.order = number
        missing = [layer.name for layer in layers if layer not in order]
        if missing:
            raise ValueError(
                f"calibrate: the model never calls {missing[0]!r} on the first batch, so there is nothing to calibrate "
                f"it with: leave it out with overrides={{{missing[0]!r}: None}}"
            )
        return order


def _kept(layer: Layer) -> dict:
    """What a run that continues needs of a layer; hooks, which need not be picklable, stay with the float module."""
    kept = {name: getattr(layer, name) for name in KEPT}
    if layer.quantized is not None:
        kept["quantized"] = copy.copy(layer.quantized)
        kept["quantized"]._take_hooks(nn.Module())
    return kept


@contextmanager
def _removed(handle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
