"""A quantized weight as the named tensors that state dicts and checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..formats import QuantSpec
from ..qtensor import QTensor

# name in a state dict -> attribute of QTensor
FIELDS = {
    "weight_packed": "packed",
    "weight_scales": "scale_data",
    "weight_zero_points": "zero_points",
    "weight_tensor_scale": "tensor_scale",
}


def field_names(spec: QuantSpec) -> list[str]:
    """The tensors that a weight of this spec consists of."""
    absent = set()
    if not spec.zero_point:
        absent.add("weight_zero_points")
    if spec.scale_format != "e4m3fn":
        absent.add("weight_tensor_scale")
    return [name for name in FIELDS if name not in absent]


def to_tensors(q: QTensor) -> dict[str, torch.Tensor]:
    """The canonical tensors of q by name."""
    return {name: getattr(q, FIELDS[name]) for name in field_names(q.spec)}


def from_tensors(tensors: Mapping[str, torch.Tensor], spec: QuantSpec, shape: tuple[int, int], layer: str) -> QTensor:
    """The inverse of to_tensors.

    Args:
        tensors: exactly the names of field_names(spec).
        layer: qualified name, for messages.
    Raises:
        ValueError: a tensor's shape or dtype does not fit, or a code is out of range.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{join(layer, name)} is a {type(tensor).__name__}, expected a tensor")
    try:
        return QTensor(spec, shape, **{FIELDS[name]: tensor for name, tensor in tensors.items()})
    except ValueError as error:
        raise ValueError(f"{join(layer, 'weight')}, {spec} of shape {tuple(shape)}: {error}") from error


def join(layer: str, name: str) -> str:
    """The key of a layer's tensor; the layer's name is empty where it is the whole model."""
    return f"{layer}.{name}" if layer else name


def read_state(
    state: Mapping,
    prefix: str,
    spec: QuantSpec,
    shape: tuple[int, int],
    bias: torch.Tensor | None,
    extras: Mapping[str, torch.Tensor | None],
):
    """What a state dict says about one layer.

    Args:
        prefix: what the layer's keys begin with, "" or ending in a dot.
        spec, shape, bias: what the layer is.
        extras: what else its class may have: by name, None where it has not.
    Returns:
        (QTensor, or None if there is none to be had; missing keys; unexpected keys; errors).
    """
    here = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    names = field_names(spec)
    missing = [name for name in names if name not in here]
    missing += [name for name, tensor in extras.items() if tensor is not None and name not in here]
    errors = []
    if bias is not None and "bias" not in here:
        missing.append("bias")
    elif bias is not None and getattr(here["bias"], "shape", None) != bias.shape:
        got = getattr(here["bias"], "shape", None)
        got = type(here["bias"]).__name__ if got is None else f"of shape {tuple(got)}"
        errors.append(f"{prefix}bias is {got}, but the layer takes a tensor of shape {tuple(bias.shape)}")
    if "weight" in here:
        errors.append(f"{prefix}weight is a float weight, but the layer is quantized to {spec}: load it, then quantize")
    for name in FIELDS:
        if name in here and name not in names:
            errors.append(f"{prefix}{name} does not belong to {spec}, which the layer is quantized to")
    q = None
    if not missing and not errors:
        try:
            q = from_tensors({name: here[name] for name in names}, spec, shape, prefix[:-1])
        except ValueError as error:
            errors.append(str(error))
    own = {*FIELDS, "weight", *extras, *(["bias"] if bias is not None else [])}
    unexpected = [prefix + name for name in here if name not in own]
    return q, [prefix + name for name in missing if not errors], unexpected, errors
