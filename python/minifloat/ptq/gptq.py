"""GPTQ: round a weight column by column, and let the columns that are still float make up for each rounding error."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..qtensor import QTensor
from .blocks import stages
from .collect import Hessian
from .layer import Layer
from .recipe import Step, register
from .run import Run


@register
@dataclass(frozen=True)
class GPTQ(Step):
    """Quantize every layer to a small error of its outputs on the calibration data, instead of its weights.

    Layers are taken in the order of their calls, on the outputs of the quantized ones before them. Any format, codebook
    and group goes, MX and NVFP4 too: the scales of a group are set when its first column is reached. A layer for which
    the result is worse than rounding to nearest, on the same Hessian, is rounded to nearest.

    Attributes:
        block: columns between two updates of all later ones; speed only.
        act_order: take the columns by falling Hessian diagonal. The scales of groups are then all set at the start.
        damp: this part of the mean of the Hessian's diagonal is added to it.
        true_order: within a block of the model, take the layers one after another, those with the same input together.
            False: all layers of a block see its inputs while they are float, which takes one pass through the block.
    Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
        section 3.3 and algorithm 1; act-order as in the authors' published code.
    """

    name = "gptq"

    block: int = 128
    act_order: bool = False
    damp: float = 0.01
    true_order: bool = True

    def __post_init__(self):
        if self.block < 1 or self.damp <= 0:
            raise ValueError(f"gptq: block={self.block} must be at least 1, damp={self.damp} above 0")

    def apply(self, run: Run) -> None:
        for block in run.sequence():
            for stage in stages(run, block) if self.true_order else [block.layers]:
                todo = [layer for layer in stage if not run.restored(layer)]
                hessians = hessians_of(run, todo, same_input=self.true_order)
                for layer in todo:
                    run.set_weight(layer, self.quantize(layer, hessians[layer]))

    def quantize(self, layer: Layer, hessian: torch.Tensor) -> QTensor:
        """The layer's weight for inputs with this Hessian, float64 (row_groups, K, K)."""
        w = layer.matrix
        found = self._quantize(layer, w, hessian)
        nearest = layer.nearest(w)
        errors = [output_error(q.dequantize() - w, hessian) for q in (found, nearest)]
        return found if errors[0] <= errors[1] else nearest

    def _quantize(self, layer: Layer, w: torch.Tensor, hessian: torch.Tensor) -> QTensor:
        groups, (n, k) = hessian.shape[0], w.shape
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        importance = diagonal.repeat_interleave(n // groups, 0)
        columns = _Columns(layer, w, importance, ordered=not self.act_order)
        order = diagonal.argsort(1, descending=True) if self.act_order else torch.arange(k).expand(groups, k)
        block = self.block
        if columns.group_size:  # a group's later columns must have had every update when its scales are set
            block = -(-block // columns.group_size) * columns.group_size
        sweep(columns, w.double().reshape(groups, -1, k), hessian.double(), order, block, self.damp)
        return columns.scales.qtensor(columns.codes)


def hessians_of(run: Run, layers: list[Layer], same_input: bool) -> dict[Layer, torch.Tensor]:
    """The Hessian of each layer; linear layers that see the same inputs share one."""
    by_key: dict = {}
    for layer in layers:
        outliers = () if layer.outliers is None else tuple(layer.outliers[0].tolist())
        once = layer.kind == "linear" and run.calls[layer] == 1
        key = outliers if same_input and once else layer
        by_key.setdefault(key, []).append(layer)
    found = {alike[0]: Hessian() for alike in by_key.values()}
    if found:
        run.collect(found)
    return {layer: found[alike[0]].value for alike in by_key.values() for layer in alike}


class _Columns:
    """Rounds a matrix column by column, and finds the scales of groups as they are reached if `ordered`."""

    def __init__(self, layer: Layer, w: torch.Tensor, importance: torch.Tensor, ordered: bool):
        self.layer, self.importance = layer, importance
        self.group_size = layer.weight.group_size
        self.scales = layer.find_scales(w, importance)
        self.found_late = ordered and self.group_size is not None
        self.codes = torch.empty(w.shape, dtype=torch.uint8)

    def reach(self, k: int, rest: torch.Tensor) -> None:
        """Column k comes next; rest: float64 (N, columns from k on), as they are now."""
        if self.found_late and k % self.group_size == 0:
            here = slice(k, k + self.group_size)
            part = rest[:, : self.group_size].float()
            second = self.scales.tensor_scale if self.layer.weight.scale_format == "e4m3fn" else None
            found = self.layer.rule.find(part, self.layer.weight, self.importance[:, here], second)
            g = k // self.group_size
            self.scales.values[:, g] = found.values[:, 0]
            if found.zero_points is not None:
                self.scales.zero_points[:, g] = found.zero_points[:, 0]

    def round(self, w: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """w, float64 (N,), of column k[n] in row n, rounded to nearest."""
        rows = torch.arange(len(k))
        scales = self.scales.elements(rows, k)
        codes = scales.codes(w.float()[:, None])
        self.codes[rows, k] = codes[:, 0]
        return scales.decode(codes)[:, 0].double()


def sweep(columns: _Columns, w: torch.Tensor, hessian: torch.Tensor, order: torch.Tensor, block: int, damp: float):
    """GPTQ's loop over the columns of w, float64 (groups, N / groups, K), in the order (groups, K) of each group."""
    groups, n, k = w.shape
    w = w.gather(2, order[:, None].expand_as(w))
    hessian = hessian.gather(1, order[:, :, None].expand_as(hessian)).gather(2, order[:, None].expand_as(hessian))
    factor = inverse_factor(hessian, damp)
    for start in range(0, k, block):
        stop = min(start + block, k)
        errors = torch.zeros(groups, n, stop - start, dtype=w.dtype)
        for j in range(start, stop):
            columns.reach(j, w[:, :, j:].reshape(groups * n, -1))
            rounded = columns.round(w[:, :, j].reshape(-1), order[:, j].repeat_interleave(n)).reshape(groups, n)
            error = (w[:, :, j] - rounded) / factor[:, j, j, None]
            w[:, :, j + 1 : stop] -= error[:, :, None] * factor[:, None, j, j + 1 : stop]
            errors[:, :, j - start] = error
        w[:, :, stop:] -= errors @ factor[:, start:stop, stop:]


def inverse_factor(hessian: torch.Tensor, damp: float) -> torch.Tensor:
    """Upper Cholesky factor U of the damped Hessian's inverse, U^T U = (H + damping)^-1; batched, float64.

    The damping grows tenfold until the factorization succeeds.
    """
    k = hessian.shape[-1]
    mean = hessian.diagonal(dim1=1, dim2=2).mean(1)
    unit = torch.where(mean > 0, mean, 1.0)[:, None, None] * torch.eye(k, dtype=hessian.dtype)
    while damp < 1e6:
        lower, failed = torch.linalg.cholesky_ex(hessian + damp * unit)
        if not failed.any():
            factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed.any():
                return factor
        damp *= 10
    raise ValueError("gptq: the Hessian of a layer's inputs cannot be factorized; are its inputs finite?")


def output_error(difference: torch.Tensor, hessian: torch.Tensor) -> float:
    """Sum of squared output errors on the calibration data: trace(D H D^T). difference: (N, K), of the weight."""
    d = difference.double().reshape(hessian.shape[0], -1, difference.shape[1])
    return ((d @ hessian.double()) * d).sum().item()
