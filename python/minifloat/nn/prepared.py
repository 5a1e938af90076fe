"""The quantized weight of one layer, or of several tied ones, in the layout of the backend that multiplies it."""

from __future__ import annotations

import copy

import torch

from .. import ops
from ..formats import QuantSpec
from ..qtensor import QTensor


class PreparedWeight:
    """What tied layers share: ties survive deepcopy, pickle and .to() because they hold the same PreparedWeight.

    Attributes:
        spec, activation: how the weight is quantized, and x (None: x stays float).
        shape: (N, K).
        bits_per_value: of the weight, scales included.
        layout: uint8, on the layers' device. Made for one backend, so never stored: files and pickles hold the QTensor.
        plan: uint8, on the CPU whatever the device, because the kernels' dispatch reads it.
    """

    def __init__(self, q: QTensor, activation: QuantSpec | None):
        self.spec = q.spec
        self.activation = activation
        self.shape = tuple(q.shape)
        self.bits_per_value = q.bits_per_value
        self.layout, self.plan = self._lay_out(q)

    def _lay_out(self, q: QTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layout and the plan for q."""
        return ops.prepare(q, self.activation)

    def _restore(self) -> QTensor:
        """The inverse of _lay_out, bit for bit."""
        return ops.restore(self.layout, self.plan, self.spec, self.shape)

    @property
    def qtensor(self) -> QTensor:
        """The canonical form, bit for bit what was prepared; made anew at each call."""
        if self.layout.is_meta:
            raise ValueError("the quantized weight is on the meta device and has no values: load them first")
        return self._restore()

    def follow(self, moved: torch.Tensor) -> None:
        """Take over `moved`, what a layer's .to() made of the layout, unless a tied layer was here first."""
        old = self.layout
        if moved.device == old.device:
            return  # what else the conversion did, as .type(torch.half) does to every buffer, is not for these bits
        if moved.device.type == old.device.type or moved.is_meta or old.is_meta:
            self.layout = moved
        else:  # another backend, another layout
            q = on_device(self.qtensor, moved.device)
            self.layout, self.plan = self._lay_out(q)

    def overwrite(self, q: QTensor) -> None:
        """Hold q, of the same spec and shape, from now on: in place, so that tied layers see it too."""
        if not self.layout.is_meta:
            q = on_device(q, self.layout.device)
        layout, plan = self._lay_out(q)
        if self.layout.is_meta:
            self.layout, self.plan = layout, plan
        else:
            self.layout.copy_(layout)
            self.plan.copy_(plan)

    def __deepcopy__(self, memo: dict) -> PreparedWeight:
        new = object.__new__(type(self))
        new.__dict__ = self.__dict__ | {name: copy.deepcopy(getattr(self, name), memo) for name in ("layout", "plan")}
        return new

    def __reduce__(self):
        return type(self), (self.qtensor, self.activation)


def on_device(q: QTensor, device: torch.device) -> QTensor:
    """q with every tensor on `device`."""
    optional = [None if t is None else t.to(device) for t in (q.zero_points, q.tensor_scale)]
    return QTensor(q.spec, q.shape, q.packed.to(device), q.scale_data.to(device), *optional)
