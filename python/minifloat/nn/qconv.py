"""QConv2d: nn.Conv2d with a quantized weight, as a matrix product of the input's patches."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .. import ops  # noqa: F401 - registers torch.ops.minifloat.linear
from ..formats import QuantSpec
from ..qtensor import QTensor
from .conv import output_size, pad, patches
from .grouped import carrier_of, depthwise_conv, grouped_conv, grouped_linear
from .prepared import PreparedWeight
from .qmodule import QModule, check_activation
from .shift import takes_shift
from .static import pinned

_linear = torch.ops.minifloat.linear.default
GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups", "padding", "padding_mode")
GEOMETRY += ("_reversed_padding_repeated_twice",)


class QConv2d(QModule):
    """A 2-d convolution with its weight, and its input if there is an activation spec, in 1 to 8 bits.

    Called like nn.Conv2d: x (B, C, H, W) or (C, H, W). The weight is a matrix (N, K), N = out_channels and
    K = in_channels / groups * kernel height * kernel width; "row" and "g32" of the weight spec refer to it. The input
    is seen as patches (groups * B * output positions, K): an activation spec with "row" gives each patch a scale, one
    with "tensor" gives all of them the same. One group of channels runs through torch.ops.minifloat.linear; several run
    through minifloat.nn.grouped, which gives the bits of one such product a group.

    Attributes:
        in_channels, out_channels, kernel_size, stride, dilation, groups, padding, padding_mode: as in nn.Conv2d.
    """

    float_type = nn.Conv2d

    @classmethod
    def from_qtensor(
        cls,
        q: QTensor,
        like: nn.Conv2d,
        bias: torch.Tensor | None = None,
        activation: str | QuantSpec | None = None,
    ) -> QConv2d:
        """A layer with the weight q, (N, K), and the strides and so on of `like`."""
        return cls._from_prepared(PreparedWeight(q, check_activation(activation, q.shape[1])), bias, like)

    def _take_shape(self, like: nn.Module) -> None:
        for name in GEOMETRY:
            setattr(self, name, getattr(like, name))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"QConv2d: x is {tuple(x.shape)}, expected ({self.in_channels}, H, W) or (B, {self.in_channels}, H, W)"
            )
        if self.input_shift is not None:
            return self._product(x.float() - self.input_shift[:, None, None]).to(x.dtype)
        return self._product(x)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        height, width = output_size(x, self)
        batch = x.shape[0] if x.dim() == 4 else 1
        if self.groups > 1 and self.activation is None:
            y = F.conv2d(pad(x, self), self.weight.to(x.dtype), None, self.stride, 0, self.dilation, self.groups)
            return y if self.bias is None else y + self.bias.to(x.dtype)[:, None, None]
        if self._is_whole():
            return self._whole(x, height, width)
        rows = patches(x, self)
        if self.input_range is not None:
            rows = pinned(rows, self.input_range)
        if self.groups == 1:
            y = _linear(rows[0], self._buffers["layout"], self.plan, self.bias, self.out_channels)
        else:
            y = grouped_linear(rows, self.prepared, self.bias)
        if self.input_range is not None:
            y = y[:-2].to(x.dtype)
        y = y.reshape(batch, height, width, self.out_channels).permute(0, 3, 1, 2)
        return y if x.dim() == 4 else y[0]

    def _shift_problems(self, shift: torch.Tensor) -> list[str]:
        if not takes_shift(self):
            return ["input_shift: zeros of the padding cannot be shifted, and the kernel must be 1 x 1"]
        if len(shift) != self.in_channels:
            return [f"input_shift has {len(shift)} values, but there are {self.in_channels} input channels"]
        return super()._shift_problems(shift)

    def _is_whole(self) -> bool:
        """Whether grouped_conv or depthwise_conv takes the input as it is, without laying out its patches."""
        spec, weight = self.activation, self.spec
        every_pixel = self.stride == (1, 1) or (
            self.dilation == (1, 1) and all(s <= k for s, k in zip(self.stride, self.kernel_size, strict=True))
        )
        shared = spec is not None and spec.granularity == "tensor" and every_pixel
        depthwise = spec is not None and spec.granularity == "row" and self.groups == self.in_channels
        return (
            self.groups > 1
            and (shared or depthwise)
            and spec.scale_format != "e4m3fn"
            and weight.group_size is None
            and carrier_of(self.prepared, self.prepared.shape[1]) is not None
        )

    def _whole(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        given = pad(x if x.dim() == 4 else x[None], self)
        used = [  # what no patch reaches at the far edges must not set the scale
            (out - 1) * stride + dilation * (kernel - 1) + 1
            for out, stride, dilation, kernel in zip(
                (height, width), self.stride, self.dilation, self.kernel_size, strict=True
            )
        ]
        given = given[:, :, : used[0], : used[1]]
        if self.activation.granularity == "row":
            y = depthwise_conv(given, self.prepared, self.bias, self.kernel_size, self.stride, self.dilation)
            return y.to(x.dtype) if x.dim() == 4 else y[0].to(x.dtype)
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        geometry = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        y = grouped_conv(given, self.prepared, self.bias, self.input_range, shape, **geometry).to(x.dtype)
        return y if x.dim() == 4 else y[0]

    @property
    def weight(self) -> torch.Tensor:
        return super().weight.reshape(self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}, "
            f"{self._spec_repr()}"
        )
