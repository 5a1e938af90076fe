"""A layer on its way from float to quantized, seen as a matrix product whatever its kind."""

from __future__ import annotations

import torch
from torch import nn

from ..nn import selection
from ..nn.binary_coded_linear import BinaryCodedLinear
from ..nn.conv import patches
from ..nn.kinds import KINDS, kind_of
from ..nn.outlier_linear import replacing
from ..nn.qmodule import QModule
from ..qtensor import QTensor
from .scales import ScaleRule, Scales


class Layer:
    """One selected layer.

    Attributes:
        name: qualified name, the first one if there are several.
        kind: "linear", "conv2d" or "embedding".
        float: the float module, with the values that the steps so far have given it.
        weight, activation: the specs; steps may change them while the layer is float.
        rule: how the weight's scales are found.
        input_range: what the input is clipped to, which fixes its scale; None: scaled as it comes.
        input_shift: float32 (channels,), what is subtracted from the input before it is rounded; `bias` then holds what
            that takes away. None: nothing.
        outliers: input dimensions (C,) of a linear layer that stay in float, and the dtype of their weights.
        bias: the bias to quantize with, where a step has changed it; None: the float module's.
        quantized: the module that takes the float one's place; None: not made yet.
        order: when the model first called it, in the trace of the first batch.
    """

    def __init__(self, found: selection.Layer):
        self.name, self._places = found.name, list(found.places)
        self.float = found.module
        self.kind = kind_of(found.module)
        self.weight, self.activation = found.weight, found.activation
        self.rule = ScaleRule(found.weight.scale_rule)
        self.input_range: tuple[float, float] | None = None
        self.input_shift: torch.Tensor | None = None
        self.outliers: tuple[torch.Tensor, torch.dtype] | None = None
        self.bias: torch.Tensor | None = None
        self.quantized: QModule | None = None
        self.order = -1

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {self.kind}, {self.weight} x {self.activation or 'float'})"

    @property
    def matrix(self) -> torch.Tensor:
        """float32 (N, K): a copy of the float weight, one row an output; 0 in the columns of outliers."""
        w = self.float.weight.detach().float().flatten(1).clone()
        return w if self.outliers is None else w.index_fill_(1, self.outliers[0], 0)

    @torch.no_grad()
    def set_matrix(self, w: torch.Tensor) -> None:
        """Give the float weight these values, (N, K); columns of outliers keep theirs."""
        if self.outliers is not None:
            kept = self.float.weight.float().index_select(1, self.outliers[0])
            w = w.index_copy(1, self.outliers[0], kept)
        self.float.weight.copy_(w.reshape(self.float.weight.shape))

    @property
    def row_groups(self) -> int:
        """How many runs of rows of the matrix see inputs of their own: the groups of a convolution, else 1."""
        return self.float.groups if self.kind == "conv2d" else 1

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (row_groups, M, K): what the matrix multiplies when the layer is called on x.

        Outputs n of row group g are rows(x)[g] @ matrix[n]; what outliers add is not part of it.
        """
        x = self.shifted(x)
        x = x if self.outliers is None else x.index_fill(-1, self.outliers[0], 0)
        return patches(x, self.float) if self.kind == "conv2d" else x.reshape(1, -1, x.shape[-1])

    def shifted(self, x: torch.Tensor) -> torch.Tensor:
        """float32: what the layer rounds when it is called on x."""
        x = x.detach().float()
        if self.input_shift is None:
            return x
        return x - self.per_channel(self.input_shift)

    def per_channel(self, values: torch.Tensor) -> torch.Tensor:
        """(channels,) in the shape that broadcasts to an input of the layer."""
        return values[:, None, None] if self.kind == "conv2d" else values

    def channels(self, x: torch.Tensor) -> torch.Tensor:
        """(positions, channels) of an input or output of the layer."""
        return x.movedim(1, -1).reshape(-1, x.shape[1]) if self.kind == "conv2d" else x.reshape(-1, x.shape[-1])

    def find_scales(self, w: torch.Tensor | None = None, importance: torch.Tensor | None = None) -> Scales:
        """Scales for the float weight, or for w in its place, by the layer's rule."""
        return self.rule.find(self.matrix if w is None else w, self.weight, importance)

    def nearest(self, w: torch.Tensor | None = None, importance: torch.Tensor | None = None) -> QTensor:
        """The float weight, or w in its place, rounded to nearest."""
        w = self.matrix if w is None else w
        scales = self.find_scales(w, importance)
        return scales.qtensor(scales.codes(w))

    def start(self, step) -> QTensor:
        """Where a step that improves codes starts: what the layer is quantized to, or else rounding to nearest.

        Raises:
            ValueError: the codes are of planes, which are improved otherwise.
        """
        if isinstance(self.quantized, BinaryCodedLinear):
            raise ValueError(f"recipe: {step.name} cannot improve the planes that binary_coded made of {self.name!r}")
        return self.quantized.qtensor if self.quantized else self.nearest()

    def make(self, q: QTensor, bias: torch.Tensor | None = None) -> QModule:
        """The quantized module with the weight q, in the float module's mode and with its hooks."""
        made = KINDS[self.kind]
        bias = self.bias if bias is None else bias
        prepared = made.prepared_type(q, self.activation)
        if self.outliers is None:
            module = made._replacing(self.float, prepared, bias)
        else:
            columns, dtype = self.outliers
            kept = self.float.weight.detach().index_select(1, columns).to(dtype)
            module = replacing(self.float, prepared, bias, columns, kept)
        if self.input_range is not None:
            module.set_input_range(*self.input_range)
        if self.input_shift is not None:
            module.set_input_shift(self.input_shift)
        return module

    def put(self, module: nn.Module) -> None:
        """Put a module in the layer's places in the model."""
        for parent, attribute in self._places:
            parent._modules[attribute] = module

    @property
    def current(self) -> nn.Module:
        """What is in the layer's places now."""
        parent, attribute = self._places[0]
        return parent._modules[attribute]
