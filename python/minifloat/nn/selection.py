"""Which layers of a model quantize_ is to change, and how each: select patterns, overrides, exact names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from ..formats import QuantSpec
from .kinds import layer_types, matrix_shape
from .qmodule import parse_activation

NOT_SELECTED = "not selected"
LEFT_OUT = "left out by an override"

Select = str | Sequence[str] | Callable[[str, nn.Module], bool] | None
Overrides = Mapping[str, Mapping[str, str | QuantSpec | None] | None]


@dataclass
class Layer:
    """A layer of the model, float or quantized, which may occur in several places.

    places: (parent, attribute) pairs. names: the qualified name of each. named: asked for by one of its names, in full.
    reason: why it stays float, empty otherwise.
    """

    module: nn.Module
    names: list[str] = field(default_factory=list)
    places: list[tuple[nn.Module, str]] = field(default_factory=list)
    weight: QuantSpec | None = None
    activation: QuantSpec | None = None
    named: bool = False
    reason: str = ""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K) of the weight as a matrix."""
        return matrix_shape(self.module)

    def matches(self, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in self.names)


def find_layers(model: nn.Module, kinds: Sequence[str] = ("linear",)) -> list[Layer]:
    """Every layer of these kinds below the model, float or quantized, each module once, in the model's order."""
    types = layer_types(kinds)
    modules = dict(model.named_modules(remove_duplicate=False))
    layers: dict[int, Layer] = {}
    for name, module in modules.items():
        if name and isinstance(module, types):
            parent, _, attribute = name.rpartition(".")
            layer = layers.setdefault(id(module), Layer(module))
            layer.names.append(name)
            layer.places.append((modules[parent], attribute))
    return list(layers.values())


def choose(layers: list[Layer], weight: QuantSpec, activation: QuantSpec | None, select: Select, overrides: Overrides):
    """Set weight and activation of the layers that are to be quantized, and the reason of the others.

    Raises:
        ValueError: a pattern matches nothing, or an override is not understood.
    """
    for layer in layers:
        layer.reason = NOT_SELECTED
    chosen = _select(layers, select)
    for layer in chosen:
        layer.weight, layer.activation, layer.reason = weight, activation, ""
    for pattern, override in overrides.items():
        matching = [layer for layer in chosen if layer.matches(pattern)]
        if not matching:
            raise ValueError(
                f"quantize_: the override {pattern!r} matches no {_kind(layers, chosen)}; {_hint(chosen, pattern)}"
            )
        fields = _read_override(pattern, override)
        for layer in matching:
            if fields is None:
                layer.weight, layer.activation, layer.reason = None, None, LEFT_OUT
                continue
            # A layer that an earlier pattern left out is quantized again, from the call's own specs.
            old_weight, old_activation = (
                (weight, activation) if layer.weight is None else (layer.weight, layer.activation)
            )
            layer.weight, layer.activation = fields.get("weight", old_weight), fields.get("activation", old_activation)
            layer.reason = ""
            layer.named |= pattern in layer.names


def _select(layers: list[Layer], select: Select) -> list[Layer]:
    if select is None:
        return layers
    if callable(select):
        chosen = [layer for layer in layers if any(select(name, layer.module) for name in layer.names)]
        if not chosen:
            raise ValueError(f"quantize_: select chose none of the {len(layers)} Linear layers; {_hint(layers, '')}")
        return chosen
    patterns = [select] if isinstance(select, str) else list(select)
    for pattern in patterns:
        matching = [layer for layer in layers if layer.matches(pattern)]
        if not matching:
            raise ValueError(f"quantize_: select={pattern!r} matches no Linear layer; {_hint(layers, pattern)}")
        for layer in matching:
            layer.named |= pattern in layer.names
    chosen = [layer for layer in layers if any(layer.matches(pattern) for pattern in patterns)]
    if not chosen:
        raise ValueError("quantize_: select is an empty list; None selects every Linear layer")
    return chosen


def _read_override(pattern: str, override) -> dict[str, QuantSpec | None] | None:
    if override is None:
        return None
    if not isinstance(override, Mapping) or not set(override) <= {"weight", "activation"} or not override:
        raise ValueError(
            f"quantize_: the override of {pattern!r} is {override!r}; expected None to leave the layer out, "
            "or a dictionary with 'weight', 'activation' or both"
        )
    if "weight" in override and override["weight"] is None:
        raise ValueError(f"quantize_: the override of {pattern!r} has no weight; use None alone to leave the layer out")
    parsers = {"weight": QuantSpec.parse, "activation": parse_activation}
    return {key: parsers[key](spec) for key, spec in override.items()}


def _kind(layers: list[Layer], chosen: list[Layer]) -> str:
    return "Linear layer" if len(chosen) == len(layers) else "Linear layer that select chose"


def _hint(layers: list[Layer], pattern: str) -> str:
    names = [name for layer in layers for name in layer.names]
    shown = difflib.get_close_matches(pattern, names, n=3) or names[:3]
    return f"patterns are globs over names such as {', '.join(map(repr, shown))}"
