"""Binary coding: linear weights as sums of binary planes with scales, by alternating least squares."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from ..binary_coding import ITERATIONS, Store, binary_code, binary_decode, binary_spec, check_planes
from ..binary_descent import SortedGroups, best_scales, levels
from ..nn.binary_coded_linear import BinaryCodedLinear
from ..nn.prepared import PreparedWeight
from ..qtensor import QTensor
from .blocks import stages
from .gptq import hessians_of, output_error, sweep
from .layer import Layer
from .recipe import Step, register
from .run import Run

BLOCK = 128  # columns between two updates of all later ones, where a group is all of a row
ERRORS = ("weight", "diagonal", "output")


@register
@dataclass(frozen=True)
class CodeInPlanes(Step):
    """Make linear layers BinaryCodedLinear: w = sum over i of alpha[i] * b[i] with `bits` planes b of -1 and +1.

    Convolutions stay float, and are rounded by the call's weight spec at the end as ever; a warning names them.

    Attributes:
        bits: planes, 1 to 8.
        group: inputs that share the scales of their planes; None: all K.
        scale: format of the scales: "float32", "bfloat16", "e8m0" or "e4m3fn".
        iterations: rounds of least squares at most.
        error: what is made small. "weight": the squared error of the weights, without data. "diagonal": the same, each
            weighted by the mean square of its input. "output": GPTQ's sweep, in which later inputs make up for the
            errors of those before, with the scales of a group found by least squares when it is reached; a layer for
            which that is worse than "diagonal" gets that.
        damp: for "output": this part of the mean of the Hessian's diagonal is added to it.
    Source: Xu et al., "Alternating Multi-bit Quantization for Recurrent Neural Networks", section 3; Park et al.,
        "LUT-GEMM" (nuQmm), section 3.1; "output" with Frantar et al., "GPTQ", section 3.3.
    """

    name = "binary_coded"

    bits: int = 3
    group: int | None = 128
    scale: str = "bfloat16"
    iterations: int = ITERATIONS
    error: str = "weight"
    damp: float = 0.01

    def __post_init__(self):
        try:
            check_planes(self.bits)
            binary_spec(self.group or 1, self.group, self.scale)
        except ValueError as problem:
            raise ValueError(f"binary_coded: {problem}") from problem
        if self.error not in ERRORS or self.iterations < 0 or self.damp <= 0:
            raise ValueError(
                f"binary_coded: error={self.error!r} must be one of {', '.join(ERRORS)}, "
                f"iterations={self.iterations} at least 0, damp={self.damp} above 0"
            )

    def apply(self, run: Run) -> None:
        run.float_only(self)
        self._check(run.layers)
        linear = [layer for layer in run.layers if layer.kind == "linear"]
        if self.error == "weight":  # no inputs to wait for
            for layer in run.track(linear, self.name):
                if not run.restored(layer):
                    self._put(run, layer, self.quantize(layer))
            return
        for block in run.sequence():
            for stage in stages(run, block):
                todo = [layer for layer in stage if layer in linear and not run.restored(layer)]
                hessians = hessians_of(run, todo, same_input=True)
                for layer in todo:
                    self._put(run, layer, self.quantize(layer, hessians[layer]))

    def _check(self, layers: list[Layer]) -> None:
        """Raise, or warn, of what stands in the way, before anything is changed."""
        for layer in layers:
            if layer.kind != "linear":
                continue
            if layer.outliers is not None:
                raise ValueError(f"binary_coded: {layer.name!r} keeps outliers in float, which planes do not go with")
            try:
                binary_spec(layer.float.in_features, self.group, self.scale)
            except ValueError as problem:
                leave_out = f"or leave the layer out with overrides={{{layer.name!r}: None}}"
                raise ValueError(f"binary_coded: layer {layer.name!r}: {problem}; {leave_out}") from problem
        others = [layer for layer in layers if layer.kind != "linear"]
        if others:
            names = ", ".join(f"{layer.name!r} ({layer.weight})" for layer in others)
            warnings.warn(f"binary_coded: convolutions stay as their specs say: {names}", stacklevel=4)

    @staticmethod
    def _put(run: Run, layer: Layer, q: QTensor) -> None:
        made = BinaryCodedLinear._replacing(layer.float, PreparedWeight(q, layer.activation), layer.bias)
        if layer.input_range is not None:
            made.set_input_range(*layer.input_range)
        run.set_module(layer, made)

    def quantize(self, layer: Layer, hessian: torch.Tensor | None = None) -> QTensor:
        """The planes of the layer's weight; hessian: float64 (1, K, K) of its inputs, for errors that look at them."""
        w, k = layer.matrix, layer.float.in_features
        importance = None if self.error == "weight" else hessian[0].diagonal()
        plain = binary_code(w, self.bits, self.group, self.scale, self.iterations, importance)
        if self.error != "output":
            return plain
        columns = _Columns(w, self, importance)
        block = columns.size if columns.size < k else BLOCK  # at its start a group must have had all updates
        sweep(columns, w.double()[None], hessian.double(), torch.arange(k)[None], block, self.damp)
        found = columns.store.qtensor(columns.alpha, columns.codes)
        errors = [output_error(binary_decode(q, self.bits) - w, hessian) for q in (found, plain)]
        return found if errors[0] < errors[1] else plain


class _Columns:
    """What GPTQ's sweep asks: scales for a group when its first column is reached, codes column by column.

    Attributes:
        alpha: float32 (N, groups, planes). codes: uint8 (N, K), bit i for plane i.
    """

    def __init__(self, w: torch.Tensor, step: CodeInPlanes, importance: torch.Tensor):
        (n, k), self.step, self.importance = w.shape, step, importance
        spec = binary_spec(k, step.group, step.scale)
        self.store, self.size = Store(spec, w), spec.group_size
        self.alpha = torch.empty(n, k // self.size, step.bits)
        self.codes = torch.empty(n, k, dtype=torch.uint8)

    def reach(self, k: int, rest: torch.Tensor) -> None:
        """Column k comes next; rest: float64 (N, columns from k on), as they are now."""
        if k % self.size:
            return
        blocks = rest[:, : self.size]
        groups = SortedGroups.of(blocks, self.importance[k : k + self.size].expand_as(blocks))
        alpha = best_scales(groups, self.step.bits, self.step.iterations, self.store.rounded)
        self.alpha[:, k // self.size] = alpha
        self._levels = levels(alpha)

    def round(self, w: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """float64: the levels nearest to w, float64 (N,), of column k[n], the same in all rows."""
        sums, codes, middles = self._levels
        index = torch.searchsorted(middles, w[:, None].contiguous(), right=True)
        self.codes[:, k[0]] = codes.gather(1, index)[:, 0].to(torch.uint8)
        return sums.gather(1, index)[:, 0]
