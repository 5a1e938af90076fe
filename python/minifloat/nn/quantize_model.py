"""quantize_: turn the Linear and other layers of a model into quantized ones, all of the chosen ones or none."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy

from ..formats import QuantSpec
from ..qtensor import quantize
from .fused import call_layers
from .kinds import KINDS, kind_of
from .prepared import PreparedWeight
from .progress import track
from .qmodule import QModule, parse_activation
from .report import LayerReport
from .selection import LEFT_OUT, NOT_SELECTED, Layer, Overrides, Select, choose, find_layers

MAX_SHOWN = 5  # problems in one message


def quantize_(
    model: nn.Module,
    weight: str | QuantSpec,
    activation: str | QuantSpec | None = None,
    select: Select = None,
    overrides: Overrides | None = None,
    report: list[LayerReport] | None = None,
    kinds: Sequence[str] = ("linear",),
) -> nn.Module:
    """Replace nn.Linear layers of `model` by QLinear, and other kinds if asked, in place.

    A layer that cannot become a QLinear stays float, and one warning names all of those with the reason:
    nn.MultiheadAttention's out_proj and other layers whose weight is read by somebody else, subclasses with a forward
    of their own, and a layer tied to an embedding or to another layer that stays float, which quantizing would untie.
    Naming a tied layer in full, in `select` or `overrides`, quantizes and unties it. Linears tied to each other
    stay tied. Forward and backward hooks move to the new layer.

    Args:
        weight, activation: specs such as "e2m1-g32-e8m0"; activation None leaves x in float.
        select: which layers: a glob over qualified names ('*' matches dots too), a list of globs, or
            callable(name, module) -> bool. None: every Linear.
        overrides: glob -> {"weight": ..., "activation": ...} (what is not given stays) or None to leave the layer
            out. They refine what select chose; where several match, later ones win.
        report: a list that gets one LayerReport for each layer of these kinds in the model, quantized or not.
        kinds: which layers are looked at: "linear" (nn.Linear to QLinear), "conv2d" (nn.Conv2d to QConv2d) and
            "embedding" (nn.Embedding to QEmbedding, whose input is an index: `activation` does not apply).
    Returns:
        model.
    Raises:
        ValueError: a pattern that matches nothing, a layer that is quantized already, has no values, NaN or infinity,
            or a K that does not fit the groups. The model is then as it was.
    """
    layers = plan_layers(model, weight, activation, select, overrides, kinds)
    chosen = [layer for layer in layers if layer.weight is not None]
    prepared: dict[tuple, PreparedWeight] = {}
    made: dict[int, QModule] = {}
    for layer in track(chosen, "quantizing"):
        made[id(layer)] = _quantized(layer, prepared)
    warn_of(layers, "quantize_")  # an error where warnings are errors: before anything changes
    for layer in chosen:  # from here on nothing can fail
        for parent, attribute in layer.places:
            parent._modules[attribute] = made[id(layer)]
    call_layers(model)
    if report is not None:
        report.extend(map(report_on, layers))
    return model


def plan_layers(
    model: nn.Module,
    weight: str | QuantSpec,
    activation: str | QuantSpec | None,
    select: Select,
    overrides: Overrides | None,
    kinds: Sequence[str],
) -> list[Layer]:
    """The layers of these kinds; those with a weight spec are to be quantized, and can be.

    Raises:
        ValueError: as quantize_.
    """
    if kind := kind_of(model):
        raise ValueError(
            f"quantize_: a {type(model).__name__} cannot replace itself: use "
            f"mf.nn.{KINDS[kind].__name__}.from_float({kind}, ...)"
        )
    layers = find_layers(model, kinds)
    if not layers:
        names = " or ".join(f"nn.{KINDS[kind].float_type.__name__}" for kind in kinds)
        raise ValueError(f"quantize_: {type(model).__name__} has no {names}")
    choose(layers, QuantSpec.parse(weight), parse_activation(activation), select, overrides or {})
    _leave_out(layers, model)
    for layer in layers:
        if kind_of(layer.module) == "embedding":
            layer.activation = None
    _raise_all([problem for layer in layers if layer.weight is not None for problem in _problems(layer)])
    return layers


def _leave_out(layers: list[Layer], model: nn.Module) -> None:
    """Drop the chosen layers that must stay float, with the reason."""
    for layer in layers:
        if layer.weight is not None and (reason := _why_float(layer.module)):
            if layer.named:
                raise ValueError(f"quantize_: {layer.name!r} cannot be quantized: {reason}")
            layer.weight, layer.activation, layer.reason = None, None, reason
    owners = _owners(model)
    chosen = [layer for layer in layers if layer.weight is not None and not isinstance(layer.module, QModule)]
    modules = {id(layer.module) for layer in chosen}
    first: dict[int, Layer] = {}
    for layer in chosen:
        key = id(layer.module.weight)
        float_name = next((name for module, name in owners[key] if id(module) not in modules), None)
        if float_name and not layer.named:
            reason = f"its weight is tied to '{float_name}', which stays float"
            layer.weight, layer.activation, layer.reason = None, None, reason
            continue
        other = first.setdefault(key, layer)
        if (layer.weight, layer.activation) != (other.weight, other.activation):
            raise ValueError(
                f"quantize_: '{other.name}' and '{layer.name}' share one weight, but would be quantized as "
                f"{other.weight} x {other.activation} and {layer.weight} x {layer.activation}: give them the same specs"
            )


def _why_float(module: nn.Module) -> str:
    """Why this layer cannot be quantized, in whatever format; empty if it can."""
    if isinstance(module, QModule):
        return ""  # not silently kept: see _problems
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention multiplies with its weight directly, without calling it"
    if "weight" not in module._parameters:
        return "its weight is computed by a parametrization, weight norm or pruning: make that permanent first"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "max_norm rescales its weight at each call"
    if type(module).forward is not KINDS[kind_of(module)].float_type.forward or "forward" in vars(module):
        return f"it has a forward of its own ({type(module).__name__})"
    return ""


def _owners(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """id of each parameter -> the modules that hold it, each once, with the parameter's qualified name."""
    owners: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module_name, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners[id(parameter)].append((module, f"{module_name}.{name}" if module_name else name))
    return owners


def _problems(layer: Layer) -> list[str]:
    """What forbids to quantize this layer as asked; each message says what would be right."""
    module = layer.module
    leave_out = f"or leave it out with overrides={{{layer.name!r}: None}}"
    if isinstance(module, QModule):
        return [f"{layer.name!r} is already quantized to {module.spec}: quantize the float layer, {leave_out}"]
    if is_lazy(module.weight) or module.weight.is_meta:
        return [
            f"{layer.name!r} has no values yet (its weight is lazy or on the meta device): load them first, {leave_out}"
        ]
    if module.weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return [f"{layer.name!r} has a weight of {module.weight.dtype}: convert it to float32 first, {leave_out}"]
    problems = []
    for what, spec in (("weight", layer.weight), ("activation", layer.activation)):
        k, group = layer.shape[1], spec.group_size if spec else None
        if group and k % group:
            divisor = next(g for g in range(min(group, k), 0, -1) if k % g == 0)
            problems.append(
                f"{layer.name!r} has K={k}, which is not a multiple of the group size {group} of the {what} {spec}: "
                f"use a group size that divides {k}, such as {divisor}, or '-row', {leave_out}"
            )
    return problems


def _raise_all(problems: list[str]) -> None:
    if len(problems) > MAX_SHOWN:
        problems = [*problems[:MAX_SHOWN], f"and {len(problems) - MAX_SHOWN} more like these"]
    if problems:
        raise ValueError("quantize_: nothing was changed, because " + "\n  ".join(problems))


def _quantized(layer: Layer, prepared: dict[tuple, PreparedWeight]) -> QModule:
    """The layer quantized. prepared: the weights so far, so that tied ones are shared."""
    module = layer.module
    try:
        made = KINDS[kind_of(module)]
        key = (id(module.weight), made.prepared_type)  # an embedding and a linear layer have layouts of their own
        if key not in prepared:
            with torch.no_grad():
                q = quantize(module.weight.detach().flatten(1), layer.weight)
            prepared[key] = made.prepared_type(q, layer.activation)
        return made._replacing(module, prepared[key])
    except ValueError as error:
        raise ValueError(f"quantize_: nothing was changed, because of {layer.name!r}: {error}") from error


def warn_of(layers: list[Layer], caller: str) -> None:
    """One warning for all layers that stay float although they were asked for."""
    skipped = [layer for layer in layers if layer.reason not in ("", NOT_SELECTED, LEFT_OUT)]
    if skipped:
        reasons = "; ".join(f"'{layer.name}': {layer.reason}" for layer in skipped)
        warnings.warn(f"{caller}: left in float: {reasons}. Leave them out to silence this.", stacklevel=3)


def report_on(layer: Layer) -> LayerReport:
    parent, attribute = layer.places[0]
    now = parent._modules[attribute]
    if isinstance(now, QModule):
        return LayerReport(layer.name, layer.shape, now.spec, now.activation, now.bits_per_value, layer.reason)
    return LayerReport(layer.name, layer.shape, None, None, 8.0 * now.weight.dtype.itemsize, layer.reason)
