"""LLM.int8(): input dimensions with large activations stay in 16 or 32 bits, beside the low-bit product."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .collect import AbsMax
from .recipe import Step, register
from .run import Run

DTYPES = {"float16": torch.float16, "float32": torch.float32}


@register
@dataclass(frozen=True)
class KeepOutliers(Step):
    """Keep the input dimensions of linear layers in float in which some calibration input reaches the threshold.

    The layer then becomes an OutlierLinear, whatever quantizes the other dimensions. Layers without such dimensions
    become QLinear as ever.

    Attributes:
        threshold: magnitude from which on an input is an outlier.
        dtype: of the weights that are kept: "float16" or "float32".
    Source: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", section 3.2.
    """

    name = "outliers"

    threshold: float = 6.0
    dtype: str = "float16"

    def __post_init__(self):
        if not self.threshold > 0 or self.dtype not in DTYPES:
            given = f"threshold={self.threshold} must be above 0, and dtype={self.dtype!r} one of {', '.join(DTYPES)}"
            raise ValueError(f"outliers: {given}")

    def apply(self, run: Run) -> None:
        run.float_only(self)
        tops = {layer: AbsMax() for layer in run.layers if layer.kind == "linear"}
        if tops:
            run.collect(tops, "outliers")
        for layer, top in tops.items():
            columns = (top.value >= self.threshold).nonzero().flatten()
            layer.outliers = (columns, DTYPES[self.dtype]) if len(columns) else None
