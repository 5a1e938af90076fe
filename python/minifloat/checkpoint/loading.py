"""load: a file's tensors and quantized layers into a model, everything or nothing."""

from __future__ import annotations

import os

import torch
from torch import nn

from ..nn.canonical import FIELDS, field_names, join
from ..nn.fused import call_layers
from ..nn.kinds import matrix_shape
from ..nn.prepared import PreparedWeight, on_device
from ..nn.progress import track
from ..nn.qmodule import QModule
from .file import Content, read
from .saving import own_tensors, unwrap

MAX_SHOWN = 5  # problems in one message


def load(model: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Put what `path` holds into the model, in place: everything, or nothing if anything is wrong.

    Args:
        model: of the same architecture, float or already quantized in any format. Its float layers become quantized
            ones where the file holds them quantized; everything else is copied into the tensors that are there.
            Parameters that shared memory when they were saved share it again. The model may be on the meta device.
    Returns:
        model.
    Raises:
        ValueError: the file is damaged or does not fit the model; the message names what. The model is as it was.
    """
    target = unwrap(model)
    try:
        content = read(os.fspath(path))
        _raise_all(_layer_problems(target, content))
        _raise_all(_tensor_problems(target, content))
        layers = _make_layers(target, content)
    except ValueError as error:
        raise ValueError(f"load: {os.fspath(path)}: {error}") from error
    _put_layers(target, content, layers)  # from here on nothing can fail
    _put_tensors(target, content)
    call_layers(target)
    return model


def _layer_problems(model: nn.Module, content: Content) -> list[str]:
    modules = dict(model.named_modules(remove_duplicate=False))
    problems = []
    for name, stored in content.layers.items():
        module = modules.get(name)
        if not _takes(module, stored.made):
            has = "has no such layer" if module is None else f"has a {type(module).__name__} there"
            problems.append(f"the file holds a quantized layer {name!r}, but the model {has}")
        elif matrix_shape(module) != stored.shape:
            problems.append(
                f"layer {name!r} has {_shape(stored.made, stored.shape)} in the file, but "
                f"{_shape(stored.made, matrix_shape(module))} in the model"
            )
        elif not name and not isinstance(module, QModule):
            kind, made = type(module).__name__, stored.made.__name__
            problems.append(
                f"a single nn.{kind} cannot become a {made} in place: load into a {made}, or put it in a module"
            )
        extras = _extras(content, name)
        problems += [
            f"layer {name!r}: {p}" for p in stored.made._extra_problems(extras, stored.shape, stored.activation)
        ]
    for name, module in modules.items():
        if isinstance(module, QModule) and name not in content.layers:
            problems.append(f"layer {name!r} is quantized in the model, but float in the file: load into a float model")
    return problems


def _takes(module: nn.Module | None, made: type[QModule]) -> bool:
    """Whether this module of the model can hold what the file stores as `made`."""
    return type(module) is made or (isinstance(module, made.float_type) and not isinstance(module, QModule))


def _shape(made: type[QModule], shape: tuple[int, int]) -> str:
    n, k = shape
    return f"in_features={k}, out_features={n}" if made.float_type is nn.Linear else f"a weight of ({n}, {k})"


def _extras(content: Content, layer: str) -> dict[str, torch.Tensor]:
    """What the file holds of a layer beside its weight and bias."""
    names = [name for name in content.layers[layer].made.extras if join(layer, name) in content]
    return {name: content.tensor(join(layer, name)) for name in names}


def _replaced(content: Content) -> set[str]:
    """Names of tensors that the quantized layers of the file take the place of."""
    return {
        join(layer, part)
        for layer, stored in content.layers.items()
        for part in ("weight", "layout", *stored.made.extras)
    }


def _new_biases(model: nn.Module, content: Content) -> dict[str, torch.Tensor]:
    """layer -> the file's bias for a layer that has none in the model: methods that correct means add one."""
    modules = dict(model.named_modules(remove_duplicate=False))
    without = (name for name in content.layers if getattr(modules.get(name), "bias", ...) is None)
    return {name: content.tensor(join(name, "bias")) for name in without if join(name, "bias") in content}


def _tensor_problems(model: nn.Module, content: Content) -> list[str]:
    replaced, new = _replaced(content), _new_biases(model, content)
    expected = {name: tensor for name, tensor in own_tensors(model) if name not in replaced}
    of_layers = {
        join(layer, field) for layer, stored in content.layers.items() for field in (*FIELDS, *stored.made.extras)
    }
    problems = [f"tensor {name!r} is missing, which the model has" for name in expected if name not in content]
    added = {join(layer, "bias") for layer in new}
    extra = [name for name in content.names() if name not in of_layers and name not in expected and name not in added]
    problems += [f"tensor {name!r} is in the file, but not in the model" for name in extra]
    for layer, bias in new.items():
        n = content.layers[layer].shape[0]
        if tuple(bias.shape) != (n,) or not bias.is_floating_point():
            problems.append(f"tensor {join(layer, 'bias')!r} is {bias.dtype} {tuple(bias.shape)}, not ({n},) floats")
    first: dict[int, str] = {}
    for name, tensor in expected.items():
        if name not in content:
            continue
        stored = content.tensor(name)
        if (stored.shape, stored.dtype) != (tensor.shape, tensor.dtype):
            problems.append(
                f"tensor {name!r} is {stored.dtype} {tuple(stored.shape)} in the file, but {tensor.dtype} "
                f"{tuple(tensor.shape)} in the model"
            )
        same = first.setdefault(id(tensor), name)
        if content.stored_name(same) != content.stored_name(name) and not _same_bits(content.tensor(same), stored):
            problems.append(f"{same!r} and {name!r} are one tensor in the model, but differ in the file")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta and name not in expected and name not in replaced:
            problems.append(f"{name!r} is on the meta device and not in the file: give it values first")
    return problems


def _make_layers(model: nn.Module, content: Content) -> dict[str, tuple[PreparedWeight, nn.Module]]:
    """name -> the weight and the layer that is to hold it: a new one for a float layer, else the one that is there."""
    modules = dict(model.named_modules(remove_duplicate=False))
    new = {name: nn.Parameter(bias.clone()) for name, bias in _new_biases(model, content).items()}
    prepared: dict[tuple, PreparedWeight] = {}  # by what is stored: tied layers share one
    holders: dict[int, tuple[str, PreparedWeight, nn.Module]] = {}
    out = {}
    for name, stored in track(content.layers.items(), "loading"):
        module = modules[name]
        device = (module.layout if isinstance(module, QModule) else module.weight).device
        device = torch.device("cpu") if device.type == "meta" else device
        places = tuple(content.stored_name(join(name, field)) for field in field_names(stored.weight))
        kind = stored.made.prepared_type
        key = (places, stored.weight, stored.activation, device, kind)
        if key not in prepared:
            prepared[key] = kind(on_device(content.qtensor(name), device), stored.activation)
        if id(module) not in holders:
            bias = new[name].to(device) if name in new else None
            made = module
            if not isinstance(module, QModule):
                made = stored.made._replacing(module, prepared[key], bias)
            elif bias is not None:
                module.register_parameter("bias", nn.Parameter(bias.detach()))
            holders[id(module)] = (name, prepared[key], made)
        first, weight, made = holders[id(module)]
        if weight is not prepared[key]:
            raise ValueError(f"{first!r} and {name!r} are one module in the model, but two layers in the file")
        out[name] = (weight, made)
    return out


def _put_layers(model: nn.Module, content: Content, layers: dict[str, tuple[PreparedWeight, nn.Module]]) -> None:
    for name, (prepared, layer) in layers.items():
        layer._use(prepared)
        layer._put_extras(_extras(content, name))
        if name:
            parent, _, attribute = name.rpartition(".")
            model.get_submodule(parent)._modules[attribute] = layer


@torch.no_grad()
def _put_tensors(model: nn.Module, content: Content) -> None:
    done: dict[tuple, torch.Tensor] = {}  # what shares memory in the file shares it in the model
    held = []  # so that no id is used twice
    for prefix, module in model.named_modules(remove_duplicate=False):
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or name in module._non_persistent_buffers_set:
                    continue
                held.append(tensor)
                stored_name = content.stored_name(join(prefix, name))
                here = done.get(("object", id(tensor)))
                if here is None:
                    here = done.get((stored_name, tensor.device, tensors is module._parameters))
                if here is None:
                    here = _filled(tensor, content.tensors[stored_name])
                done["object", id(tensor)] = done[stored_name, tensor.device, tensors is module._parameters] = here
                tensors[name] = here


def _filled(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """tensor with these values; a new one where it cannot be written to."""
    expanded = any(stride == 0 and extent > 1 for stride, extent in zip(tensor.stride(), tensor.shape, strict=True))
    if not (tensor.is_meta or tensor.is_inference() or expanded):
        return tensor.copy_(values)
    new = values.clone() if tensor.is_meta else values.to(tensor.device, copy=True)
    return nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _raise_all(problems: list[str]) -> None:
    if len(problems) > MAX_SHOWN:
        problems = [*problems[:MAX_SHOWN], f"and {len(problems) - MAX_SHOWN} more like these"]
    if problems:
        raise ValueError("\n  ".join(problems))
