"""QModule: what every layer with a quantized weight has in common."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..formats import QuantSpec
from ..qtensor import QTensor, quantize
from .canonical import read_state, to_tensors
from .prepared import PreparedWeight
from .shift import as_shift, shift_problems
from .static import as_range, can_be_static

HOOKS = ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs")
HOOKS += ("_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook")


class QModule(nn.Module):
    """A layer whose weight, seen as a matrix (N, K), is in 1 to 8 bits.

    In memory the weight exists once, in the layout of the backend that multiplies it. `state_dict` and pickle hold its
    canonical tensors instead (weight_packed, weight_scales and, if the spec has them, weight_zero_points and
    weight_tensor_scale), so that they mean the same on every machine. Dtype conversions (.half(), .to(dtype)) reach
    the bias only.

    Attributes:
        bias: nn.Parameter (N,) or None.
        layout: non-persistent buffer, uint8; see PreparedWeight.
        plan: uint8, always on the CPU.
        input_range: float32 (2,), buffer: the range that x is clipped to, which fixes its scale; None: scaled by what
            each x holds. See set_input_range.
        input_shift: float32, one for each input channel, buffer: what is subtracted from x before it is rounded; None:
            nothing. See set_input_shift.
    """

    float_type: ClassVar[type[nn.Module]]  # what it takes the place of
    prepared_type: ClassVar[type[PreparedWeight]] = PreparedWeight
    extras: ClassVar[tuple[str, ...]] = ("input_range", "input_shift")  # further buffers, None where a layer has none

    def _init_from(self, prepared: PreparedWeight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.register_parameter("bias", _as_parameter(bias, prepared))
        self.register_buffer("layout", prepared.layout, persistent=False)
        self.register_buffer("input_range", None)
        self.register_buffer("input_shift", None)
        self._use(prepared)

    def set_input_range(self, low: float, high: float) -> None:
        """Clip x to [low, high] (extended to include 0) from now on, and scale it for that range whatever it holds.

        Raises:
            ValueError: the activation spec has no scale for the whole tensor, or the range is not finite.
        """
        if not can_be_static(self.activation):
            raise ValueError(
                f"a fixed range needs an activation with one scale, such as int8-tensor, not {self.activation}"
            )
        self.input_range = as_range(low, high).to(self.layout.device)

    def set_input_shift(self, shift: torch.Tensor) -> None:
        """Subtract this, (channels,), from x before it is rounded. The bias is to hold what that takes away: w @ shift.

        Raises:
            ValueError: x is not rounded, the shift is not finite or of another size, or a convolution pads its input or
                has a kernel beyond 1 x 1.
        """
        shift = as_shift(shift)
        for problem in self._shift_problems(shift):
            raise ValueError(problem)
        self.input_shift = shift.to(self.layout.device)

    def _shift_problems(self, shift: torch.Tensor) -> list[str]:
        return shift_problems(shift, self.prepared.shape, self.activation)

    def _take_shape(self, like: nn.Module) -> None:
        """Copy what else the forward needs, such as strides, from a float or quantized layer."""

    @classmethod
    def from_float(
        cls, layer: nn.Module, weight: str | QuantSpec = "e2m1-g32-e8m0", activation: str | QuantSpec | None = None
    ) -> QModule:
        """Quantize a float layer. Its bias is taken over: the same Parameter.

        Raises:
            TypeError: `layer` is not of the float type that this class takes the place of.
            ValueError: unknown spec, K does not fit its groups, or the weight holds NaN or infinity or has no values.
        """
        matrix, spec = cls._float_matrix(layer), QuantSpec.parse(weight)
        activation = check_activation(activation, matrix.shape[1])
        with torch.no_grad():
            prepared = cls.prepared_type(quantize(matrix, spec), activation)
        return cls._from_prepared(prepared, getattr(layer, "bias", None), layer).train(layer.training)

    @classmethod
    def _float_matrix(cls, layer: nn.Module) -> torch.Tensor:
        """The weight (N, K) of a float layer that this class can take the place of; raises what from_float says."""
        if not isinstance(layer, cls.float_type):
            raise TypeError(
                f"{cls.__name__}.from_float takes an nn.{cls.float_type.__name__}, got {type(layer).__name__}"
            )
        if is_lazy(layer.weight) or layer.weight.is_meta:
            raise ValueError(
                f"{cls.__name__}.from_float: the weight has no values yet (it is lazy or on the meta device)"
            )
        return layer.weight.detach().flatten(1)

    @classmethod
    def _from_prepared(
        cls, prepared: PreparedWeight, bias: torch.Tensor | None, like: nn.Module | None = None
    ) -> QModule:
        """A layer tied to every other one made from the same PreparedWeight."""
        layer = cls.__new__(cls)
        layer._init_from(prepared, bias)
        if like is not None:
            layer._take_shape(like)
        return layer

    @classmethod
    def _replacing(cls, old: nn.Module, prepared: PreparedWeight, bias: torch.Tensor | None = None) -> QModule:
        """What takes the float layer's place in a model: with its bias or this one, its mode and its hooks."""
        bias = getattr(old, "bias", None) if bias is None else bias
        layer = cls._from_prepared(prepared, bias, old).train(old.training)
        layer._take_hooks(old)
        return layer

    def _take_hooks(self, old: nn.Module) -> None:
        for hooks in HOOKS:  # the same dictionaries, so that handle.remove() keeps working
            setattr(self, hooks, getattr(old, hooks))

    def _use(self, prepared: PreparedWeight) -> None:
        self.prepared = prepared
        self._buffers["layout"] = prepared.layout
        self.plan = prepared.plan

    @property
    def qtensor(self) -> QTensor:
        """The quantized weight, (N, K), in canonical form, unpacked from the layout at each access."""
        return self.prepared.qtensor

    @property
    def weight(self) -> torch.Tensor:
        """The weight that the layer multiplies with, dequantized: float32, shaped as in the float layer.

        Made anew at each access: writing to it does not change the layer.
        """
        return self.qtensor.dequantize()

    @property
    def spec(self) -> QuantSpec:
        """How the weight is quantized."""
        return self.prepared.spec

    @property
    def activation(self) -> QuantSpec | None:
        """How x is quantized; None: it stays float."""
        return self.prepared.activation

    @property
    def planes(self) -> int:
        """How many columns of the quantized weight make up one of the float weight."""
        return 1

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(N, K) of the float weight as a matrix."""
        n, k = self.prepared.shape
        return n, k // self.planes

    @property
    def bits_per_value(self) -> float:
        """Bits that one element of the weight takes, scales included."""
        return self.prepared.bits_per_value * self.planes

    def _spec_repr(self) -> str:
        ends = "" if self.input_range is None else " in [{:.4g}, {:.4g}]".format(*self.input_range.tolist())
        shift = "" if self.input_shift is None else " shifted"
        activation = f"{self.activation}{ends}{shift}"
        return f"weight={self.spec}, activation={activation}, {self.bits_per_value:.4g} bits per value"

    def _apply(self, fn, recurse=True):
        extras = {name: self._buffers[name] for name in self.extras if self._buffers[name] is not None}
        super()._apply(fn, recurse)
        for name, old in extras.items():  # moved, but never converted
            if self._buffers[name].dtype != old.dtype:
                self._buffers[name] = old.to(self._buffers[name].device)
        self.prepared.follow(self._buffers["layout"])
        self._use(self.prepared)
        return self

    def __getstate__(self) -> dict:
        state = super().__getstate__()
        state["_buffers"] = {name: t for name, t in self._buffers.items() if name != "layout"}
        del state["plan"]
        return state

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._use(self.prepared)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        for name, tensor in to_tensors(self.qtensor).items():
            destination[prefix + name] = tensor
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["weight"] = str(self.spec)

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        # The layer is loaded whole or left as it was; load_state_dict(strict=False) skips an incomplete one.
        stored_spec = local_metadata.get("weight", str(self.spec))
        if stored_spec != str(self.spec):
            error_msgs.append(f"{prefix}weight is stored as {stored_spec}, but the layer is quantized to {self.spec}")
            return
        extras = {name: self._buffers[name] for name in self.extras}
        q, missing, unexpected, errors = read_state(
            state_dict, prefix, self.spec, self.prepared.shape, self.bias, extras
        )
        given = {name: state_dict[prefix + name] for name in self.extras if prefix + name in state_dict}
        errors += [
            f"{prefix}{problem}" for problem in self._extra_problems(given, self.prepared.shape, self.activation)
        ]
        missing_keys += missing
        unexpected_keys += unexpected
        error_msgs += errors
        if q is None or errors:
            return
        bias = {} if self.bias is None else {f"{prefix}bias": state_dict[f"{prefix}bias"]}
        held = {name: self._buffers.pop(name) for name in self.extras}  # these are not torch's to load
        super()._load_from_state_dict(bias, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._buffers |= held
        self._put_extras(given)
        self.prepared.overwrite(q)
        self._use(self.prepared)

    @classmethod
    def _extra_problems(
        cls, tensors: dict[str, torch.Tensor], shape: tuple[int, int], activation: QuantSpec | None
    ) -> list[str]:
        """What is wrong with these extras for a layer of this shape (N, K)."""
        problems = shift_problems(tensors.get("input_shift"), shape, activation)
        ends = tensors.get("input_range")
        if ends is None:
            return problems
        if not can_be_static(activation):
            return [*problems, f"input_range does not go with the activation {activation}"]
        if tuple(ends.shape) != (2,) or not ends.is_floating_point() or not (ends[0] <= 0 <= ends[1] < torch.inf):
            return [*problems, f"input_range is {ends.tolist()}, expected two finite floats around 0"]
        return problems

    def _put_extras(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over these extras, found good by _extra_problems; the others become None."""
        for name in self.extras:
            tensor = tensors.get(name)
            self._buffers[name] = None if tensor is None else tensor.detach().clone().to(self.layout.device)


def parse_activation(activation: str | QuantSpec | None) -> QuantSpec | None:
    """The spec of x.

    Raises:
        ValueError: unknown spec, or one whose scales take a search.
    """
    if activation is None:
        return None
    spec = QuantSpec.parse(activation)
    if spec.scale_rule != "absmax":
        raise ValueError(f"activation {spec}: x is scaled by absmax at run time; drop '-{spec.scale_rule}'")
    return spec


def check_activation(activation: str | QuantSpec | None, k: int) -> QuantSpec | None:
    """The spec of x with K columns.

    Raises:
        ValueError: not a spec for activations, or K is not a multiple of its group size.
    """
    spec = parse_activation(activation)
    try:
        if spec is not None:
            spec.groups(k)
    except ValueError as error:
        raise ValueError(f"activation {spec}: {error}") from error
    return spec


def _as_parameter(bias: torch.Tensor | None, prepared: PreparedWeight) -> nn.Parameter | None:
    """The bias as the layer holds it; a Parameter stays the same object.

    Raises:
        ValueError: it is not (N,) floats on the weight's device.
    """
    if bias is None:
        return None
    n = prepared.shape[0]
    if tuple(bias.shape) != (n,) or not bias.is_floating_point():
        raise ValueError(f"bias is {bias.dtype} {tuple(bias.shape)}, but out_features={n} takes ({n},) floats")
    if bias.device != prepared.layout.device and not bias.is_meta:  # meta: its values are still to come
        raise ValueError(f"bias is on {bias.device}, but the weight is on {prepared.layout.device}")
    return bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias.detach())
