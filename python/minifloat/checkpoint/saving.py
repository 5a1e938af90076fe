"""save: a model's tensors and quantized layers into a file."""

from __future__ import annotations

import os

import torch
from torch import nn

from ..nn.canonical import join, to_tensors
from ..nn.progress import track
from ..nn.qmodule import QModule
from .file import Content, StoredLayer, write


def save(model: nn.Module, path: str | os.PathLike) -> None:
    """Write the model to `path`, whole or not at all: an interrupted save leaves an older file as it was.

    Raises:
        ValueError: a module keeps state other than parameters and buffers, or a tensor has no dense values.
    """
    model = unwrap(model)
    named = dict(own_tensors(model))
    content = Content()
    canonical: dict[int, dict[str, torch.Tensor]] = {}  # of tied layers once
    layers = {
        name: module for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, QModule)
    }
    for name, layer in track(layers.items(), "packing"):
        prepared = layer.prepared
        content.layers[name] = StoredLayer(
            prepared.spec, prepared.activation, layer.matrix_shape, type(layer), layer.planes
        )
        if id(prepared) not in canonical:
            canonical[id(prepared)] = to_tensors(layer.qtensor)
        named |= {join(name, field): tensor for field, tensor in canonical[id(prepared)].items()}
    seen: dict = {}
    for name in sorted(named):
        tensor = named[name].detach()
        if tensor.is_meta or tensor.layout != torch.strided:
            raise ValueError(f"save: {name!r} has no dense values (it is {tensor.layout}, on {tensor.device})")
        memory = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        stored = seen.setdefault(memory if tensor.numel() else name, name)
        if stored != name:
            content.aliases[name] = stored
        else:
            content.tensors[name] = _alone(tensor)
    write(os.path.realpath(path), content)  # of a link, replace what it points to


def own_tensors(model: nn.Module):
    """Yield (name, tensor) for each parameter and persistent buffer, as often as there are names for it.

    Raises:
        ValueError: a module writes its state dict in a way of its own, which this would miss.
    """
    for prefix, module in model.named_modules(remove_duplicate=False):
        for method in ("_save_to_state_dict", "get_extra_state"):
            if getattr(type(module), method) is not getattr(nn.Module, method) and not isinstance(module, QModule):
                raise ValueError(
                    f"{prefix!r} ({type(module).__name__}) has a {method} of its own: only parameters and "
                    "buffers can be stored"
                )
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield join(prefix, name), tensor


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's wrapper, whose names have no '_orig_mod.' in front."""
    return getattr(model, "_orig_mod", model)


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """tensor on the CPU, contiguous, with memory of its own: safetensors stores no part of a larger tensor."""
    tensor = tensor.cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
